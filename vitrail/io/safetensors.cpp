#include "vitrail/io/safetensors.h"

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/core/text.h"
#include "vitrail/io/safetensors_header.h"

namespace vitrail::io {
namespace {

using core::CheckpointError;
using core::fail;
using core::printable;

constexpr int64_t kLengthBytes = 8;

/// The JSON between the length word and the data.
std::string_view header_text(std::span<const std::byte> file, const std::string& name) {
  VT_REQUIRE(CheckpointError, file.size() >= static_cast<size_t>(kLengthBytes),
             "[safetensors] {}: must be at least 8 bytes long but got {}", name, file.size());
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(file[i]);
  VT_REQUIRE(CheckpointError, length <= static_cast<uint64_t>(kMaxSafetensorsHeader),
             "[safetensors] {}: the header must be at most {} bytes long but claims {}; the file "
             "is damaged or not a "
             "safetensors file",
             name, kMaxSafetensorsHeader, length);
  VT_REQUIRE(CheckpointError, length <= file.size() - kLengthBytes,
             "[safetensors] {}: the header must fit in the file but claims {} of {} bytes; the "
             "file is cut short",
             name, length, file.size() - kLengthBytes);
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(length)};
}

/// dtype and shape must agree with the offsets.
void check_size(const std::string& file, const std::string& tensor, const SafetensorsInfo& info) {
  const std::string where = fmt::format("{}: tensor '{}'", file, printable(tensor));
  int64_t bytes = 0;
  try {
    bytes = core::checked_mul(core::checked_product(info.shape, "the number of values"),
                              core::size_bytes(info.dtype), "the number of bytes");
  } catch (const core::Error& error) {
    fail<CheckpointError>("[safetensors] {}: {}", where, error.what());
  }
  VT_REQUIRE(CheckpointError, info.begin <= info.end && info.end - info.begin == bytes,
             "[safetensors] {}: data_offsets must span {} bytes but got [{}, {}]", where, bytes,
             info.begin, info.end);
}

/// Every byte of the data part must belong to exactly one tensor: nothing hidden, nothing read
/// twice.
void check_cover(const std::string& file, const SafetensorsHeader& header, int64_t data_bytes) {
  int64_t expected = 0;
  for (const auto& [name, info] : header.tensors) {
    VT_REQUIRE(CheckpointError, info.begin == expected,
               "[safetensors] {}: tensor '{}': must start at byte {} of the data, where the one "
               "before ends, but got {}",
               file, printable(name), expected, info.begin);
    VT_REQUIRE(CheckpointError, info.end <= data_bytes,
               "[safetensors] {}: tensor '{}': must end within the {} bytes of data but got {}; "
               "the file is cut short",
               file, printable(name), data_bytes, info.end);
    expected = info.end;
  }
  VT_REQUIRE(CheckpointError, expected == data_bytes,
             "[safetensors] {}: the tensors must cover the {} bytes of data but end at {}", file,
             data_bytes, expected);
}

}  // namespace

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> file, const std::string& name) {
  const std::string_view text = header_text(file, name);
  SafetensorsHeader header = parse_safetensors_header(text, name);
  for (const auto& [tensor, info] : header.tensors) check_size(name, tensor, info);
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.begin, a.second.end) < std::pair(b.second.begin, b.second.end);
  });

  SafetensorsFile result;
  result.name_ = name;
  result.data_offset_ = kLengthBytes + static_cast<int64_t>(text.size());
  result.data_ = file.subspan(static_cast<size_t>(result.data_offset_));
  check_cover(name, header, static_cast<int64_t>(result.data_.size()));
  for (auto& [tensor, info] : header.tensors) {
    result.names_.push_back(tensor);
    result.tensors_.emplace(tensor, std::move(info));
  }
  result.metadata_ = std::move(header.metadata);
  return result;
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  std::shared_ptr<const core::MappedFile> map;
  try {
    map = std::make_shared<core::MappedFile>(path);
  } catch (const core::DataError& error) {
    throw CheckpointError(error.what());
  }
  SafetensorsFile file = parse(map->bytes(), path);
  file.map_ = std::move(map);
  return file;
}

bool SafetensorsFile::contains(std::string_view name) const {
  return tensors_.find(name) != tensors_.end();
}

const SafetensorsInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = tensors_.find(name);
  VT_REQUIRE(CheckpointError, found != tensors_.end(),
             "[safetensors] {}: tensor '{}' must be in the file but is not", name_,
             printable(name));
  return found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(std::string_view name) const {
  const SafetensorsInfo& found = info(name);
  return data_.subspan(static_cast<size_t>(found.begin),
                       static_cast<size_t>(found.end - found.begin));
}

}  // namespace vitrail::io
