#include "vitrail/io/idx.h"

#include <bit>

#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

template <class Unsigned>
Unsigned big_endian(const std::byte* bytes) {
  Unsigned value = 0;
  for (size_t i = 0; i < sizeof(Unsigned); ++i)
    value = static_cast<Unsigned>(value << 8 | std::to_integer<Unsigned>(bytes[i]));
  return value;
}

core::DType type_of(std::byte code, const std::string& name) {
  switch (std::to_integer<int>(code)) {
    case 0x08:
      return core::DType::u8;
    case 0x09:
      return core::DType::i8;
    case 0x0B:
      return core::DType::i16;
    case 0x0C:
      return core::DType::i32;
    case 0x0D:
      return core::DType::f32;
    case 0x0E:
      return core::DType::f64;
    default:
      break;
  }
  core::fail<core::DataError>(
      "[data] {}: the type of an IDX file must be 8, 9, 11, 12, 13 or 14 but is {}", name,
      std::to_integer<int>(code));
}

}  // namespace

double IdxArray::at(int64_t i) const {
  const std::byte* bytes = values.data() + i * core::size_bytes(dtype);
  switch (dtype) {
    case core::DType::u8:
      return std::to_integer<uint8_t>(*bytes);
    case core::DType::i8:
      return static_cast<int8_t>(std::to_integer<uint8_t>(*bytes));
    case core::DType::i16:
      return static_cast<int16_t>(big_endian<uint16_t>(bytes));
    case core::DType::i32:
      return static_cast<int32_t>(big_endian<uint32_t>(bytes));
    case core::DType::f32:
      return std::bit_cast<float>(big_endian<uint32_t>(bytes));
    default:
      return std::bit_cast<double>(big_endian<uint64_t>(bytes));
  }
}

IdxArray parse_idx(std::span<const std::byte> file, const std::string& name) {
  constexpr size_t kFixed = 4, kAxis = 4, kMaxAxes = 8;
  VT_REQUIRE(
      DataError, file.size() >= kFixed && file[0] == std::byte{0} && file[1] == std::byte{0},
      "[data] {}: an IDX file must start with two zero bytes, a type and a number of axes but "
      "{}",
      name, file.size() < kFixed ? "ends before" : "starts with others");
  IdxArray array;
  array.dtype = type_of(file[2], name);
  const auto axes = std::to_integer<size_t>(file[3]);
  VT_REQUIRE(
      DataError, axes >= 1 && axes <= kMaxAxes && file.size() >= kFixed + axes * kAxis,
      "[data] {}: an IDX file must have 1 to {} axes and a length for each but has {} axes in "
      "{} bytes",
      name, kMaxAxes, axes, file.size());
  array.values = file.subspan(kFixed + axes * kAxis);
  const auto held = static_cast<int64_t>(array.values.size());
  int64_t bytes = core::size_bytes(array.dtype);
  for (size_t axis = 0; axis < axes; ++axis) {
    const auto side =
        static_cast<int64_t>(big_endian<uint32_t>(file.data() + kFixed + axis * kAxis));
    array.shape.push_back(side);
    VT_REQUIRE(DataError, !__builtin_mul_overflow(bytes, side, &bytes),
               "[data] {}: the product of the axes is beyond 64 bits", name);
  }
  VT_REQUIRE(DataError, bytes == held, "[data] {}: must hold {} bytes of values but holds {}", name,
             bytes, held);
  return array;
}

}  // namespace vitrail::io
