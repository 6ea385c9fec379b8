#include "vitrail/comm/reduce.h"

#include <type_traits>

#include "vitrail/comm/half.h"

namespace vitrail::comm {
namespace {

using core::DType;

// How an element is stored and in which type it is added.
template <class T>
struct Plain {
  using Stored = T;
  // Unsigned, so that a sum that wraps is defined.
  using Sum = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                          std::type_identity<T>>::type;
  static T load(T value) { return value; }
  static T store(T value) { return value; }
  using Value = T;
};
struct Bf16 {
  using Stored = uint16_t;
  using Value = float;
  using Sum = float;
  static float load(uint16_t bits) { return from_bf16(bits); }
  static uint16_t store(float value) { return to_bf16(value); }
};
struct F16 {
  using Stored = uint16_t;
  using Value = float;
  using Sum = float;
  static float load(uint16_t bits) { return from_f16(bits); }
  static uint16_t store(float value) { return to_f16(value); }
};

template <class Codec, Reduce op>
typename Codec::Value combine(typename Codec::Value total, typename Codec::Value next) {
  using Sum = typename Codec::Sum;
  using Value = typename Codec::Value;
  if constexpr (op == Reduce::max)
    return (next > total || next != next) ? next : total;
  else if constexpr (op == Reduce::min)
    return (next < total || next != next) ? next : total;
  else
    return static_cast<Value>(static_cast<Sum>(static_cast<Sum>(total) + static_cast<Sum>(next)));
}

// A constant count lets the compiler vectorise the loops; the whole piece is read before it is
// written, so that the output may be one of the parts.
template <class Codec, Reduce op, int kCount>
void reduce_piece(void* out, std::span<const void* const> parts, int64_t offset) {
  using Stored = typename Codec::Stored;
  typename Codec::Value total[kCount];
  const auto* first = static_cast<const Stored*>(parts[0]) + offset;
  for (int i = 0; i < kCount; ++i) total[i] = Codec::load(first[i]);
  for (size_t rank = 1; rank < parts.size(); ++rank) {
    const auto* next = static_cast<const Stored*>(parts[rank]) + offset;
    for (int i = 0; i < kCount; ++i) total[i] = combine<Codec, op>(total[i], Codec::load(next[i]));
  }
  auto* result = static_cast<Stored*>(out) + offset;
  if constexpr (op == Reduce::average) {
    const auto size = static_cast<typename Codec::Value>(parts.size());
    for (int i = 0; i < kCount; ++i) result[i] = Codec::store(total[i] / size);
  } else {
    for (int i = 0; i < kCount; ++i) result[i] = Codec::store(total[i]);
  }
}

template <class Codec, Reduce op>
void reduce_all(Buffer out, std::span<const void* const> parts) {
  constexpr int kPiece = 256;
  int64_t i = 0;
  for (; i + kPiece <= out.count; i += kPiece) reduce_piece<Codec, op, kPiece>(out.data, parts, i);
  for (; i < out.count; ++i) reduce_piece<Codec, op, 1>(out.data, parts, i);
}

template <class Codec>
void reduce_as(Buffer out, std::span<const void* const> parts, Reduce op) {
  switch (op) {
    case Reduce::sum:
      return reduce_all<Codec, Reduce::sum>(out, parts);
    case Reduce::max:
      return reduce_all<Codec, Reduce::max>(out, parts);
    case Reduce::min:
      return reduce_all<Codec, Reduce::min>(out, parts);
    case Reduce::average:
      if constexpr (std::is_floating_point_v<typename Codec::Value>)
        return reduce_all<Codec, Reduce::average>(out, parts);
  }
}

bool is_integer(DType dtype) {
  return dtype == DType::i64 || dtype == DType::i32 || dtype == DType::u8;
}

}  // namespace

void require_carried(const char* collective, DType dtype) {
  const bool floating =
      dtype == DType::f32 || dtype == DType::f64 || dtype == DType::f16 || dtype == DType::bf16;
  VT_REQUIRE(CommError, floating || is_integer(dtype),
             "[comm] {}: element type must be f32, f64, f16, bf16, i64, i32 or u8 but got {}",
             collective, core::name(dtype));
}

void require_reducible(const char* collective, DType dtype, Reduce op) {
  require_carried(collective, dtype);
  VT_REQUIRE(CommError, op != Reduce::average || !is_integer(dtype),
             "[comm] {}: average needs a floating-point type but got {}; use sum", collective,
             core::name(dtype));
}

void reduce_in_order(Buffer out, std::span<const void* const> parts, Reduce op) {
  switch (out.dtype) {
    case DType::f32:
      return reduce_as<Plain<float>>(out, parts, op);
    case DType::f64:
      return reduce_as<Plain<double>>(out, parts, op);
    case DType::bf16:
      return reduce_as<Bf16>(out, parts, op);
    case DType::f16:
      return reduce_as<F16>(out, parts, op);
    case DType::i64:
      return reduce_as<Plain<int64_t>>(out, parts, op);
    case DType::i32:
      return reduce_as<Plain<int32_t>>(out, parts, op);
    case DType::u8:
      return reduce_as<Plain<uint8_t>>(out, parts, op);
    default:
      require_carried("reduce", out.dtype);
  }
}

}  // namespace vitrail::comm
