#pragma once
/// Compares arrays with what Python wrote of them.

#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/philox.h"
#include "vitrail/io/array.h"
#include "vitrail/io/array_rows.h"

namespace vitrail::testing {

/// Python: keep(name, array, axes) writes what is expected of file `name` beside it and prints a
/// line of it.
inline constexpr const char* kKeepArrays = R"(
import numpy as np
def keep(name, array, axes="-"):
    array = np.asarray(array)
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    native.tofile(name + ".expected")
    print(name, str(native.dtype).replace("float", "f").replace("uint", "u").replace("int", "i"), axes, *array.shape)
)";

struct ExpectedArray {
  std::string name, dtype, axes;
  std::vector<int64_t> shape;
};

inline std::vector<ExpectedArray> parse_arrays(const std::string& said) {
  std::vector<ExpectedArray> all;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    ExpectedArray e;
    words >> e.name >> e.dtype >> e.axes;
    if (e.axes == "-") e.axes = "";
    for (int64_t size = 0; words >> size;) e.shape.push_back(size);
    all.push_back(e);
  }
  return all;
}

inline int64_t product(const std::vector<int64_t>& sides) {
  int64_t n = 1;
  for (const int64_t side : sides) n *= side;
  return n;
}

inline std::string read_box(const io::ArrayFile& file, const std::vector<int64_t>& origin,
                            const std::vector<int64_t>& sides) {
  std::string bytes(static_cast<size_t>(product(sides) * core::size_bytes(file.dtype())), '?');
  file.read(origin, sides, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

/// The box cut out of the whole by the plainest loop.
inline std::string cut_box(const std::string& whole, const std::vector<int64_t>& shape,
                           const std::vector<int64_t>& origin, const std::vector<int64_t>& sides,
                           int64_t bytes) {
  std::string box;
  for (int64_t i = 0; i < product(sides); ++i) {
    int64_t rest = i, place = 0, step = 1;
    for (size_t axis = shape.size(); axis-- > 0;) {
      place += (origin[axis] + rest % sides[axis]) * step;
      rest /= sides[axis];
      step *= shape[axis];
    }
    box += whole.substr(static_cast<size_t>(place * bytes), static_cast<size_t>(bytes));
  }
  return box;
}

/// Shape, type, axes, all values bit for bit, and `boxes` random boxes. The number of boxes.
inline int expect_array(const io::ArrayFile& file, const ExpectedArray& e, const TempFolder& folder,
                        uint32_t boxes = 6) {
  SCOPED_TRACE(e.name);
  EXPECT_EQ(file.shape(), e.shape);
  EXPECT_EQ(core::name(file.dtype()), e.dtype);
  EXPECT_EQ(file.axes(), e.axes);
  if (file.shape() != e.shape) return 0;
  const std::string whole = core::read_file(folder.file(e.name + ".expected"), 1 << 28);
  const std::vector<int64_t> zero(e.shape.size(), 0);
  EXPECT_TRUE(read_box(file, zero, e.shape) == whole) << "values differ";
  if (product(e.shape) == 0) return 0;
  for (uint32_t round = 0; round < boxes; ++round) {
    std::vector<int64_t> origin, sides;
    for (size_t axis = 0; axis < e.shape.size(); ++axis) {
      const auto draw = [&](int64_t below, uint32_t k) {
        return static_cast<int64_t>(core::draw({5, core::Stream::test, round, 0},
                                               std::hash<std::string>()(e.name),
                                               static_cast<uint32_t>(2 * axis) + k)) %
               below;
      };
      origin.push_back(draw(e.shape[axis], 0));
      sides.push_back(1 + draw(e.shape[axis] - origin.back(), 1));
    }
    EXPECT_TRUE(read_box(file, origin, sides) ==
                cut_box(whole, e.shape, origin, sides, core::size_bytes(file.dtype())))
        << "box " << round << " differs";
  }
  return static_cast<int>(boxes);
}

}  // namespace vitrail::testing
