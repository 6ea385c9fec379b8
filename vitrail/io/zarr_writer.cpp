#include "vitrail/io/zarr_writer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/io/nifti_bytes.h"

namespace vitrail::io {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChunkSide = 128;

std::string data_type(core::DType dtype) {
  switch (dtype) {
    case core::DType::f64: return "float64";
    case core::DType::f32: return "float32";
    case core::DType::f16: return "float16";
    case core::DType::i64: return "int64";
    case core::DType::i32: return "int32";
    case core::DType::i16: return "int16";
    case core::DType::i8: return "int8";
    case core::DType::u64: return "uint64";
    case core::DType::u32: return "uint32";
    case core::DType::u16: return "uint16";
    case core::DType::u8: return "uint8";
    case core::DType::boolean: return "bool";
    case core::DType::bf16: break;
  }
  core::fail("[zarr] an array of {} cannot be written", core::name(dtype));
}

std::vector<int64_t> chunk_shape(std::span<const int64_t> shape) {
  std::vector<int64_t> chunk;
  for (const int64_t side : shape) chunk.push_back(std::clamp<int64_t>(side, 1, kChunkSide));
  return chunk;
}

std::string metadata(core::DType dtype, std::span<const int64_t> shape,
                     const std::vector<int64_t>& chunk, const std::string& axes) {
  using Json = nlohmann::ordered_json;
  Json names = Json::array();
  for (const char axis : axes) names.push_back(std::string(1, axis));
  const Json fill = dtype == core::DType::boolean ? Json(false) : Json(0);
  const Json document{
      {"zarr_format", 3},
      {"node_type", "array"},
      {"shape", std::vector<int64_t>(shape.begin(), shape.end())},
      {"data_type", data_type(dtype)},
      {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", chunk}}}}},
      {"chunk_key_encoding", {{"name", "default"}, {"configuration", {{"separator", "/"}}}}},
      {"fill_value", fill},
      {"codecs",
       Json::array({Json{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}},
                    Json{{"name", "gzip"}, {"configuration", {{"level", 6}}}}})},
      {"dimension_names", names},
      {"attributes", Json::object()}};
  return document.dump(2) + "\n";
}

/// The bytes of one chunk; what reaches past the end is zero, as the format wants whole chunks.
class ChunkCutter {
 public:
  ChunkCutter(std::span<const int64_t> shape, const std::vector<int64_t>& chunk, int64_t item)
      : shape_(shape), chunk_(chunk), item_(item) {}

  std::string cut(const std::vector<int64_t>& place, const std::byte* values) const {
    std::string bytes(static_cast<size_t>(core::checked_product(chunk_, "a chunk") * item_), '\0');
    copy(0, place, values, 0, bytes.data(), 0);
    return bytes;
  }

 private:
  void copy(size_t axis, const std::vector<int64_t>& place, const std::byte* values, int64_t from,
            char* bytes, int64_t to) const {
    const int64_t start = place[axis] * chunk_[axis];
    const int64_t count = std::min(chunk_[axis], shape_[axis] - start);
    if (axis + 1 == chunk_.size()) {
      std::memcpy(bytes + to * chunk_[axis] * item_,
                  values + (from * shape_[axis] + start) * item_,
                  static_cast<size_t>(count * item_));
      return;
    }
    for (int64_t i = 0; i < count; ++i)
      copy(axis + 1, place, values, from * shape_[axis] + start + i, bytes,
           to * chunk_[axis] + i);
  }

  std::span<const int64_t> shape_;
  const std::vector<int64_t>& chunk_;
  int64_t item_;
};

/// Counts through the chunk grid, last axis fastest. False at the end.
bool advance(std::vector<int64_t>& place, std::span<const int64_t> shape,
             const std::vector<int64_t>& chunk) {
  for (size_t axis = place.size(); axis-- > 0;) {
    if ((++place[axis]) * chunk[axis] < shape[axis]) return true;
    place[axis] = 0;
  }
  return false;
}

void write_chunks(const std::string& folder, std::span<const int64_t> shape,
                  const std::vector<int64_t>& chunk, int64_t item, const std::byte* values) {
  const ChunkCutter cutter(shape, chunk, item);
  std::vector<int64_t> place(shape.size(), 0);
  do {
    fs::path file = fs::path(folder) / "c";
    for (const int64_t index : place) file /= std::to_string(index);
    core::make_directories(file.parent_path().string());
    core::write_file_atomic(file.string(), pack_gzip(cutter.cut(place, values)));
  } while (advance(place, shape, chunk));
}

}  // namespace

void write_zarr(const std::string& path, core::DType dtype, std::span<const int64_t> shape,
                const std::string& axes, const void* values) {
  VT_CHECK(!shape.empty() && axes.size() == shape.size(),
           "[zarr] {}: must get a letter for each of {} axes but got '{}'", path, shape.size(),
           axes);
  VT_CHECK(std::all_of(shape.begin(), shape.end(), [](int64_t side) { return side > 0; }),
           "[zarr] {}: every side must be above zero", path);
  VT_CHECK(!fs::exists(path), "[zarr] {}: is there already; remove it or write elsewhere", path);
  const std::vector<int64_t> chunk = chunk_shape(shape);
  const std::string document = metadata(dtype, shape, chunk, axes);
  const std::string temporary = core::temporary_name(path);
  try {
    write_chunks(temporary, shape, chunk, core::size_bytes(dtype),
                 static_cast<const std::byte*>(values));
    core::write_file_atomic((fs::path(temporary) / "zarr.json").string(), document);
    core::move_into_place(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

}  // namespace vitrail::io
