#include "vitrail/io/raw.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/core/text.h"
#include "vitrail/io/array_rows.h"

namespace vitrail::io {
namespace {

using core::DType;

struct TypeName {
  DType dtype;
  std::string_view name, code;
};
constexpr std::array kTypeNames = {
    TypeName{DType::f64, "float64", "f8"},  TypeName{DType::f32, "float32", "f4"},
    TypeName{DType::f16, "float16", "f2"},  TypeName{DType::bf16, "bfloat16", "bf2"},
    TypeName{DType::i64, "int64", "i8"},    TypeName{DType::i32, "int32", "i4"},
    TypeName{DType::i16, "int16", "i2"},    TypeName{DType::i8, "int8", "i1"},
    TypeName{DType::u64, "uint64", "u8"},   TypeName{DType::u32, "uint32", "u4"},
    TypeName{DType::u16, "uint16", "u2"},   TypeName{DType::u8, "uint8", "u1"},
    TypeName{DType::boolean, "bool", "b1"},
};

template <size_t kBytes>
void copy_row(const std::byte* from, int64_t step, bool is_swapped, int64_t n, std::byte* to) {
  if (step == int64_t{kBytes} && !is_swapped) {
    std::memcpy(to, from, static_cast<size_t>(n) * kBytes);
    return;
  }
  for (int64_t i = 0; i < n; ++i, from += step, to += kBytes) {
    std::array<std::byte, kBytes> value;
    std::memcpy(value.data(), from, kBytes);
    if (is_swapped) std::reverse(value.begin(), value.end());
    std::memcpy(to, value.data(), kBytes);
  }
}

using CopyRow = void (*)(const std::byte*, int64_t, bool, int64_t, std::byte*);

CopyRow copy_row_of(int64_t bytes) {
  switch (bytes) {
    case 1:
      return copy_row<1>;
    case 2:
      return copy_row<2>;
    case 4:
      return copy_row<4>;
    default:
      return copy_row<8>;
  }
}

std::vector<int64_t> strides_of(const RawLayout& layout) {
  const int64_t bytes = core::size_bytes(layout.type.dtype);
  if (!layout.first_axis_fastest) return row_major_strides(layout.shape, bytes);
  std::vector<int64_t> turned(layout.shape.rbegin(), layout.shape.rend());
  std::vector<int64_t> strides = row_major_strides(turned, bytes);
  std::reverse(strides.begin(), strides.end());
  return strides;
}

}  // namespace

RawType parse_raw_type(std::string_view text) {
  std::string_view rest = text;
  RawType type;
  if (!rest.empty() && std::string_view("<>|=").find(rest.front()) != std::string_view::npos) {
    type.is_big_endian = rest.front() == '>';
    rest.remove_prefix(1);
  } else if (rest.ends_with("le") || rest.ends_with("be")) {
    type.is_big_endian = rest.ends_with("be");
    rest.remove_suffix(2);
  }
  const auto found = std::find_if(kTypeNames.begin(), kTypeNames.end(), [&](const TypeName& known) {
    return rest == known.name || rest == known.code;
  });
  VT_REQUIRE(
      ConfigError, found != kTypeNames.end(),
      "[data] dtype must be bool, int8 ... int64, uint8 ... uint64, float16, bfloat16, "
      "float32 or float64 (or u1, i2, f4, ...), with < or > in front for the byte order, but "
      "got '{}'",
      core::printable(text));
  type.dtype = found->dtype;
  return type;
}

int64_t raw_bytes(const RawLayout& layout, const std::string& name) {
  try {
    for (const int64_t size : layout.shape)
      VT_CHECK(size >= 0, "sizes must be zero or more but got {}", size);
    return core::checked_mul(core::checked_product(layout.shape, "the number of values"),
                             core::size_bytes(layout.type.dtype), "the number of bytes");
  } catch (const core::Error& error) {
    core::fail<core::DataError>("[data] {}: {}", name, error.what());
  }
}

RawArray::RawArray(std::span<const std::byte> file, std::shared_ptr<const void> owner,
                   RawLayout layout, std::string name)
    : owner_(std::move(owner)), layout_(std::move(layout)) {
  const auto bytes = static_cast<uint64_t>(raw_bytes(layout_, name));
  const auto offset = static_cast<uint64_t>(layout_.offset);
  VT_REQUIRE(DataError,
             layout_.offset >= 0 && offset <= file.size() && file.size() - offset == bytes,
             "[data] {}: must hold {} bytes of values behind {} bytes but has {} bytes in all; the "
             "shape, type or offset is another",
             name, bytes, layout_.offset, file.size());
  data_ = file.subspan(static_cast<size_t>(offset));
  strides_ = strides_of(layout_);
}

void RawArray::read(std::span<const int64_t> origin, std::span<const int64_t> sides,
                    std::byte* out) const {
  const int64_t bytes = core::size_bytes(layout_.type.dtype);
  const CopyRow copy = copy_row_of(bytes);
  int64_t first = 0;
  for (size_t axis = 0; axis < origin.size(); ++axis) first += origin[axis] * strides_[axis];
  const bool is_scalar = sides.empty();
  const int64_t n = is_scalar ? 1 : sides.back(), step = is_scalar ? bytes : strides_.back();
  const std::vector<int64_t> packed = row_major_strides(sides, bytes);
  for_each_row(
      sides, strides_, packed,
      [&](int64_t from, int64_t to) {
        copy(data_.data() + from, step, layout_.type.is_big_endian, n, out + to);
      },
      first);
}

std::unique_ptr<ArrayFile> open_raw(const std::string& path, const RawLayout& layout) {
  auto map = std::make_shared<const core::MappedFile>(path);
  const std::span<const std::byte> bytes = map->bytes();
  return std::make_unique<RawArray>(bytes, std::move(map), layout, path);
}

}  // namespace vitrail::io
