// Fill values: JSON to the bytes of one element.

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "vitrail/core/error.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;

[[noreturn]] void refuse(const Json& value, DType dtype, const std::string& name) {
  core::fail<DataError>("[data] {}: fill_value {} is no value of {}", name, shown(value),
                        core::name(dtype));
}

/// The bits of `value` rounded to nearest even, with `exponent_bits` and `fraction_bits`.
uint16_t round_to_16_bits(double value, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const auto infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << fraction_bits);
  if (std::isnan(value)) return static_cast<uint16_t>(infinity | 1 << (fraction_bits - 1));
  const double size = std::abs(value);
  if (std::isinf(size)) return sign | infinity;
  if (size == 0) return sign;
  int exponent = 0;
  std::frexp(size, &exponent);  // size = f * 2^exponent, f in [0.5, 1)
  exponent = std::max(exponent - 1, 1 - bias);
  // In units of the last place; an overflow into the next exponent carries by itself.
  const double units = std::nearbyint(std::ldexp(size, fraction_bits - exponent));
  const double bits = units + std::ldexp(exponent + bias - 1, fraction_bits);
  return sign | static_cast<uint16_t>(std::min<double>(bits, infinity));
}

double to_double(const Json& value, DType dtype, const std::string& name) {
  if (value.is_number()) return value.get<double>();
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  refuse(value, dtype, name);
}

template <class T>
T to_integer_of(const Json& value, DType dtype, const std::string& name) {
  if (value.is_number_unsigned()) {
    if (value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<T>::max()))
      return static_cast<T>(value.get<uint64_t>());
  } else if (value.is_number_integer()) {
    const auto number = value.get<int64_t>();
    if (number >= 0) return to_integer_of<T>(Json(static_cast<uint64_t>(number)), dtype, name);
    if (std::is_signed_v<T> && number >= static_cast<int64_t>(std::numeric_limits<T>::min()))
      return static_cast<T>(number);
  } else if (value.is_number_float()) {  // 0.0 for an integer array
    const double number = value.get<double>();
    if (number == std::trunc(number) && std::abs(number) <= 9007199254740992.0)
      return to_integer_of<T>(Json(static_cast<int64_t>(number)), dtype, name);
  }
  refuse(value, dtype, name);
}

/// "0x7fc00000": the bits of a float, most significant first.
bool parse_bits(const Json& value, DType dtype, uint64_t& bits) {
  if (!value.is_string()) return false;
  const std::string text = value.get<std::string>();
  const auto digits = static_cast<size_t>(2 * core::size_bytes(dtype));
  if (text.size() != 2 + digits || text.compare(0, 2, "0x") != 0) return false;
  const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), bits, 16);
  return error == std::errc() && end == text.data() + text.size();
}

uint64_t bits_of(const Json& value, DType dtype, const std::string& name) {
  uint64_t bits = 0;
  const auto integer = [&]<class T>(T) {
    return static_cast<uint64_t>(to_integer_of<T>(value, dtype, name));
  };
  switch (dtype) {
    case DType::boolean:
      if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
      bits = integer(uint8_t{});
      if (bits > 1) refuse(value, dtype, name);
      return bits;
    case DType::u8:
      return integer(uint8_t{});
    case DType::u16:
      return integer(uint16_t{});
    case DType::u32:
      return integer(uint32_t{});
    case DType::u64:
      return integer(uint64_t{});
    case DType::i8:
      return integer(int8_t{});
    case DType::i16:
      return integer(int16_t{});
    case DType::i32:
      return integer(int32_t{});
    case DType::i64:
      return integer(int64_t{});
    case DType::f64:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
      break;
  }
  if (parse_bits(value, dtype, bits)) return bits;
  const double number = to_double(value, dtype, name);
  if (dtype == DType::f64) return std::bit_cast<uint64_t>(number);
  if (dtype == DType::f32) return std::bit_cast<uint32_t>(static_cast<float>(number));
  if (dtype == DType::f16) return round_to_16_bits(number, 5, 10);
  return round_to_16_bits(number, 8, 7);
}

}  // namespace

std::array<std::byte, 8> parse_fill(const Json& value, DType dtype, const std::string& name) {
  static_assert(std::endian::native == std::endian::little, "values are kept little-endian");
  std::array<std::byte, 8> fill{};
  if (value.is_null()) return fill;
  const uint64_t bits = bits_of(value, dtype, name);
  std::memcpy(fill.data(), &bits, static_cast<size_t>(core::size_bytes(dtype)));
  return fill;
}

}  // namespace vitrail::io
