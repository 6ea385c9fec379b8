#include "vitrail/ops/dtype.h"

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

struct Pair {
  core::DType file;
  at::ScalarType tensor;
};
constexpr Pair kPairs[] = {
    {core::DType::f64, at::kDouble},   {core::DType::f32, at::kFloat},
    {core::DType::f16, at::kHalf},     {core::DType::bf16, at::kBFloat16},
    {core::DType::i64, at::kLong},     {core::DType::i32, at::kInt},
    {core::DType::i16, at::kShort},    {core::DType::i8, at::kChar},
    {core::DType::u64, at::kUInt64},   {core::DType::u32, at::kUInt32},
    {core::DType::u16, at::kUInt16},   {core::DType::u8, at::kByte},
    {core::DType::boolean, at::kBool},
};

}  // namespace

at::ScalarType scalar_type(core::DType dtype) {
  for (const Pair& pair : kPairs)
    if (pair.file == dtype) return pair.tensor;
  core::fail("[dtype] {} has no tensor type", core::name(dtype));
}

core::DType dtype_of(at::ScalarType type) {
  for (const Pair& pair : kPairs)
    if (pair.tensor == type) return pair.file;
  core::fail("[dtype] tensors of type {} cannot be written to a file", c10::toString(type));
}

}  // namespace vitrail::ops
