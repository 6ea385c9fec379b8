#include "vitrail/io/npy.h"

#include <array>
#include <cstring>
#include <string_view>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/core/text.h"
#include "vitrail/io/npy_header.h"
#include "vitrail/io/raw.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using core::fail;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr uint64_t kMaxHeader = 1 << 20;

struct TypeCode {
  DType dtype;
  std::string_view code;  // without the byte order
};
constexpr std::array kTypeCodes = {
    TypeCode{DType::f64, "f8"}, TypeCode{DType::f32, "f4"}, TypeCode{DType::f16, "f2"},
    TypeCode{DType::i64, "i8"}, TypeCode{DType::i32, "i4"}, TypeCode{DType::i16, "i2"},
    TypeCode{DType::i8, "i1"},  TypeCode{DType::u64, "u8"}, TypeCode{DType::u32, "u4"},
    TypeCode{DType::u16, "u2"}, TypeCode{DType::u8, "u1"},  TypeCode{DType::boolean, "b1"}};

RawType parse_type(std::string_view descr, const std::string& name) {
  const char order = descr.empty() ? ' ' : descr.front();
  for (const TypeCode& known : kTypeCodes) {
    if (descr.empty() || descr.substr(1) != known.code) continue;
    const bool is_byte = core::size_bytes(known.dtype) == 1;
    if (order == '<' || order == '>' || ((order == '|' || order == '=') && is_byte))
      return {known.dtype, order == '>' && !is_byte};
  }
  fail<DataError>(
      "[data] {}: must hold booleans, integers or floats of 16 to 64 bits but has type '{}'; save "
      "it with .astype",
      name, core::printable(descr));
}

/// Reads `bytes` little-endian bytes at `offset`.
uint64_t little_endian(std::span<const std::byte> file, size_t offset, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; --i)
    value = value << 8 | std::to_integer<uint64_t>(file[offset + i]);
  return value;
}

/// The Python literal between the length and the data, and where the data starts.
std::pair<std::string_view, size_t> header_text(std::span<const std::byte> file,
                                                const std::string& name) {
  VT_REQUIRE(DataError,
             file.size() >= 12 && std::memcmp(file.data(), kMagic.data(), kMagic.size()) == 0,
             "[data] {}: must be an .npy file but does not start like one", name);
  const auto version = std::to_integer<int>(file[6]);
  VT_REQUIRE(DataError, version >= 1 && version <= 3 && file[7] == std::byte{0},
             "[data] {}: .npy version must be 1.0, 2.0 or 3.0 but got {}.{}", name, version,
             std::to_integer<int>(file[7]));
  const int length_bytes = version == 1 ? 2 : 4;
  const uint64_t length = little_endian(file, 8, length_bytes);
  const size_t start = 8 + static_cast<size_t>(length_bytes);
  VT_REQUIRE(DataError, length <= kMaxHeader && length <= file.size() - start,
             "[data] {}: the header must fit in the file (and {} bytes) but claims {}", name,
             kMaxHeader, length);
  return {{reinterpret_cast<const char*>(file.data()) + start, static_cast<size_t>(length)},
          start + static_cast<size_t>(length)};
}

}  // namespace

NpyFile NpyFile::parse(std::span<const std::byte> file, const std::string& name) {
  const auto [text, start] = header_text(file, name);
  NpyHeader header = parse_npy_header(text, name);
  NpyFile result;
  const RawType type = parse_type(header.descr, name);
  result.dtype_ = type.dtype;
  result.is_big_endian_ = type.is_big_endian;
  const int64_t bytes = raw_bytes({type, header.shape, 0, false}, name);
  VT_REQUIRE(DataError, static_cast<uint64_t>(bytes) == file.size() - start,
             "[data] {}: must hold {} bytes of values but holds {}", name, bytes,
             file.size() - start);
  result.shape_ = std::move(header.shape);
  result.fortran_order_ = header.fortran_order;
  result.data_ = file.subspan(start);
  return result;
}

NpyFile NpyFile::open(const std::string& path) {
  auto map = std::make_shared<core::MappedFile>(path);
  NpyFile file = parse(map->bytes(), path);
  file.map_ = std::move(map);
  return file;
}

std::unique_ptr<ArrayFile> parse_npy(std::span<const std::byte> file,
                                     std::shared_ptr<const void> owner, const std::string& name) {
  const NpyFile npy = NpyFile::parse(file, name);
  RawLayout layout{{npy.dtype(), npy.is_big_endian()}, npy.shape(), 0, npy.fortran_order()};
  return std::make_unique<RawArray>(npy.bytes(), std::move(owner), std::move(layout), name);
}

std::unique_ptr<ArrayFile> open_npy(const std::string& path) {
  auto map = std::make_shared<const core::MappedFile>(path);
  const std::span<const std::byte> bytes = map->bytes();
  return parse_npy(bytes, std::move(map), path);
}

void write_npy(const std::string& path, DType dtype, std::span<const int64_t> shape,
               const void* data) {
  std::string_view code;
  for (const TypeCode& known : kTypeCodes)
    if (known.dtype == dtype) code = known.code;
  VT_CHECK(!code.empty(), "[npy] {}: NumPy has no type {}; convert it first", path,
           core::name(dtype));
  std::string axes;
  for (const int64_t size : shape) {
    VT_CHECK(size >= 0, "[npy] {}: sizes must be zero or more but got {}", path, size);
    axes += fmt::format("{}, ", size);
  }
  std::string header =
      fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                  core::size_bytes(dtype) == 1 ? '|' : '<', code,
                  shape.size() == 1 ? axes.substr(0, axes.size() - 1)
                                    : axes.substr(0, axes.size() < 2 ? 0 : axes.size() - 2));
  // NumPy starts the data at a multiple of 64 bytes.
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  VT_CHECK(header.size() <= 0xFFFF, "[npy] {}: {} axes are too many", path, shape.size());
  const int64_t bytes = core::checked_mul(core::checked_product(shape, "size of " + path),
                                          core::size_bytes(dtype), "size of " + path);
  std::string file(kMagic);
  file += {1, 0, static_cast<char>(header.size()), static_cast<char>(header.size() >> 8)};
  file += header;
  file.append(static_cast<const char*>(data), static_cast<size_t>(bytes));
  core::write_file_atomic(path, file);
}

}  // namespace vitrail::io
