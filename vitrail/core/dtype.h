#pragma once
/// Element types of buffers and files.

#include <cstdint>
#include <string_view>

namespace vitrail::core {

enum class DType : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

constexpr int64_t size_bytes(DType dtype) {
  switch (dtype) {
    case DType::f64: case DType::i64: case DType::u64: return 8;
    case DType::f32: case DType::i32: case DType::u32: return 4;
    case DType::f16: case DType::bf16: case DType::i16: case DType::u16: return 2;
    case DType::i8: case DType::u8: case DType::boolean: return 1;
  }
  return 0;
}

constexpr std::string_view name(DType dtype) {
  constexpr std::string_view names[] = {"f64", "f32", "f16", "bf16", "i64", "i32", "i16",
                                        "i8",  "u64", "u32", "u16",  "u8",  "bool"};
  return names[static_cast<int>(dtype)];
}

}  // namespace vitrail::core
