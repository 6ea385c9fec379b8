#include <algorithm>
#include <cerrno>
#include <set>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checked.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/safetensors.h"
#include <nlohmann/json.hpp>

namespace vitrail::io {
namespace {

using core::CheckpointError;
using core::fail;
using core::printable;

void check_name(const std::string& path, const std::string& name, std::set<std::string>& seen) {
  VT_REQUIRE(CheckpointError, name != "__metadata__" && seen.insert(name).second,
             "[safetensors] {}: tensor names must differ and not be __metadata__ but got '{}'",
             path, printable(name));
}

int64_t checked_bytes(const std::string& path, const TensorToWrite& tensor) {
  for (const int64_t size : tensor.shape)
    VT_REQUIRE(CheckpointError, size >= 0,
               "[safetensors] {}: tensor '{}': sizes must be zero or more but got {}", path,
               printable(tensor.name), size);
  const std::string what = "size of tensor '" + printable(tensor.name) + "'";
  return core::checked_mul(core::checked_product(tensor.shape, what),
                           core::size_bytes(tensor.dtype), what);
}

/// Length word, JSON, and spaces up to a multiple of 8, so that the data starts aligned.
std::string frame(const nlohmann::ordered_json& json, const std::string& path) {
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::exception&) {
    fail<CheckpointError>("[safetensors] {}: tensor names and metadata must be UTF-8", path);
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  VT_REQUIRE(CheckpointError, static_cast<int64_t>(text.size()) <= kMaxSafetensorsHeader,
             "[safetensors] {}: the header must be at most {} bytes long but got {}", path,
             kMaxSafetensorsHeader, text.size());
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace

SafetensorsLayout SafetensorsLayout::plan(std::span<const TensorToWrite> tensors,
                                          const SafetensorsMetadata& metadata,
                                          const std::string& path) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  SafetensorsLayout layout;
  std::set<std::string> seen;
  int64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    check_name(path, tensor.name, seen);
    const int64_t begin = end, bytes = checked_bytes(path, tensor);
    end = core::checked_add(begin, bytes, "size of the file");
    json.push_back({tensor.name,
                    {{"dtype", safetensors_dtype(tensor.dtype)},
                     {"shape", tensor.shape},
                     {"data_offsets", {begin, end}}}});
    layout.places.push_back({tensor.name, begin, bytes});
  }
  layout.header = frame(json, path);
  const auto header_bytes = static_cast<int64_t>(layout.header.size());
  for (Place& place : layout.places) place.offset += header_bytes;
  layout.file_bytes = core::checked_add(header_bytes, end, "size of the file");
  return layout;
}

SafetensorsWriter::SafetensorsWriter(std::string path, SafetensorsLayout layout)
    : path_(std::move(path)), layout_(std::move(layout)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  VT_CHECK(descriptor_ >= 0, "[file] {}: cannot be written: {}", path_,
           std::generic_category().message(errno));
  try {
    core::write_all(descriptor_, layout_.header, path_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
  for (const SafetensorsLayout::Place& place : layout_.places)
    written_.push_back({place.name, place.offset, place.bytes, 0});
  skip_finished();
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

/// Goes to the next tensor that still wants bytes; those without elements want none.
void SafetensorsWriter::skip_finished() {
  while (current_ < layout_.places.size() && filled_ == layout_.places[current_].bytes) {
    ++current_;
    filled_ = 0;
  }
}

void SafetensorsWriter::append(std::string_view name, const void* data, int64_t bytes) {
  if (bytes == 0) return;
  const bool more = current_ < layout_.places.size();
  VT_REQUIRE(CheckpointError, more && layout_.places[current_].name == name,
             "[safetensors] {}: the next bytes must be of tensor '{}' but are of '{}'", path_,
             more ? printable(layout_.places[current_].name) : "(none left)", printable(name));
  VT_REQUIRE(CheckpointError, bytes > 0 && bytes <= layout_.places[current_].bytes - filled_,
             "[safetensors] {}: tensor '{}' must have {} bytes but got {} after {}", path_,
             printable(name), layout_.places[current_].bytes, bytes, filled_);
  const auto size = static_cast<size_t>(bytes);
  core::write_all(descriptor_, {static_cast<const char*>(data), size}, path_);
  written_[current_].crc32c = core::crc32c(data, size, written_[current_].crc32c);
  filled_ += bytes;
  skip_finished();
}

std::vector<SafetensorsWriter::Written> SafetensorsWriter::finish(bool sync) {
  VT_REQUIRE(
      CheckpointError, descriptor_ >= 0 && current_ == layout_.places.size(),
      "[safetensors] {}: every tensor must be written once, then finished, but '{}' is not whole",
      path_,
      current_ < layout_.places.size() ? printable(layout_.places[current_].name) : "(file)");
  const bool failed = sync && ::fsync(descriptor_) != 0;
  const int fsync_error = errno;
  // Network file systems report a full disk only here.
  const bool close_failed = ::close(std::exchange(descriptor_, -1)) != 0;
  VT_CHECK(!failed && !close_failed,
           "[file] {}: cannot be written: {}; free space or choose another folder", path_,
           std::generic_category().message(failed ? fsync_error : errno));
  return written_;
}

std::vector<SafetensorsWriter::Written> write_safetensors(const std::string& path,
                                                          const std::vector<TensorToWrite>& tensors,
                                                          const SafetensorsMetadata& metadata) {
  std::vector<TensorToWrite> ordered = tensors;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const TensorToWrite& a, const TensorToWrite& b) {
                     return core::size_bytes(a.dtype) > core::size_bytes(b.dtype);
                   });
  SafetensorsLayout layout = SafetensorsLayout::plan(ordered, metadata, path);
  return core::replace_file(path, [&](const std::string& temporary) {
    SafetensorsWriter writer(temporary, std::move(layout));
    for (size_t i = 0; i < ordered.size(); ++i)
      writer.append(ordered[i].name, ordered[i].data, writer.layout().places[i].bytes);
    return writer.finish();
  });
}

}  // namespace vitrail::io
