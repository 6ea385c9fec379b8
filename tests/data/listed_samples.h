#pragma once
/// Samples as lines of text, to be compared with what Python prints of the same files.

#include <string>

#include <fmt/format.h>

#include "test_data.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data::test {

/// Python's twin of checksum(): `sum_of(array)` of whole numbers, in the order of memory.
inline constexpr const char* kPythonChecksum = R"(
import numpy as np
def sum_of(array):
    flat = np.asarray(array).astype(np.int64).reshape(-1)
    return int((flat * (np.arange(flat.size) % 251 + 1)).sum())
)";

template <class Value>
int64_t checksum(const std::vector<Value>& values) {
  int64_t sum = 0;
  for (size_t i = 0; i < values.size(); ++i)
    sum += static_cast<int64_t>(values[i]) * static_cast<int64_t>(i % 251 + 1);
  return sum;
}

/// "name label channels HxW checksum" of every sample, a line each; `name` is the path without
/// `folder` before it.
inline std::string listed(const Reader& reader, const std::string& folder) {
  std::string lines;
  for (int64_t i = 0; i < reader.size(); ++i) {
    const SampleInfo info = reader.describe(i);
    const Pixels pixels = reader.decode(i);
    const Shape shape = reader.shape(i);
    if (shape.sides != pixels.sides || shape.channels != pixels.channels) lines += "other shape ";
    lines += fmt::format("{} {} {} {}x{} {}\n", info.path.substr(folder.size()), info.label,
                         pixels.channels, pixels.sides.at(0), pixels.sides.at(1),
                         pixels.is_float() ? checksum(pixels.floats) : checksum(pixels.values));
  }
  return lines;
}

/// The message of the DataError (or ConfigError) that opening must throw; "" without one.
inline std::string open_error(const config::Source& source, const config::Model& model) {
  return message_of<core::DataError>([&] { open_reader(source, model); });
}
inline std::string config_error(const config::Source& source, const config::Model& model) {
  return message_of<core::ConfigError>([&] { open_reader(source, model); });
}

}  // namespace vitrail::data::test
