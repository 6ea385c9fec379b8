#pragma once
/// Pairs of neighbouring channels turned by an angle, on a GPU in one launch.
///
/// Needs    device pointers; computed in fp32, rounded once. Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

namespace vitrail::kernels {

/// x [batch, tokens, heads, 2 * pairs] with the last axis contiguous and strides in elements; the result is
/// contiguous. cos, sin fp32 [1 or batch, tokens, pairs].
struct RotaryShape {
  int64_t batch, tokens, heads, pairs;
  int64_t stride_batch, stride_token, stride_head;
  int64_t table_stride;  // from one sample's table to the next; 0 = one for all
  bool back;             // by minus the angle: the gradient of turning
};

void rotate_f32(const float* x, const float* cos, const float* sin, const RotaryShape& shape,
                float* out, void* stream);
/// Values as the bits of bfloat16.
void rotate_bf16(const uint16_t* x, const float* cos, const float* sin, const RotaryShape& shape,
                 uint16_t* out, void* stream);

}  // namespace vitrail::kernels
