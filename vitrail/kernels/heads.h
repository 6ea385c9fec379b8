#pragma once
/// q and k of every head between the qkv layer and attention's core, bf16: normed (qk-norm), then turned (rotary).
///
/// Shapes   qkv [samples, tokens, heads + 2 kv_heads, head_width]: q of all heads, k, v. cos, sin fp32
///          [1 or samples, tokens, head_width / 2] as in kernels/rotary.h.
/// Needs    device pointers, 16-byte aligned; head_width a multiple of 8, at most 256. Computed in fp32, rounded once; the
///          same result at every launch. Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

#include "vitrail/kernels/residual_norm.h"

namespace vitrail::kernels {

struct HeadsShape {
  int64_t samples = 0, tokens = 0, heads = 0, kv_heads = 0, head_width = 0;
  VT_HOST_DEVICE int64_t turned() const { return heads + kv_heads; }
};

struct Heads {
  HeadsShape shape;
  const uint16_t* qkv = nullptr;
  bool has_norm = false;
  NormParameters q_norm, k_norm;               // over head_width
  const float *cos = nullptr, *sin = nullptr;  // null: not turned
  int64_t table_stride = 0;  // from one sample's table to the next; 0 = one for all
  uint16_t* qk =
      nullptr;  // [samples, tokens, heads + kv_heads, head_width]; may be qkv's own place
  int64_t qk_token_stride = 0;  // elements from one token of qk to the next
};
void prepare_heads(const Heads& task, void* stream);
/// The loop to read and to test against, on host memory; sums in fp64.
void prepare_heads_plain(const Heads& task);

/// dqk (laid out as dqkv is, in it) becomes the gradient of what the qkv layer made, in place. Norms are computed again
/// from qkv. Gradients of norms (fp32 [head_width]) are added to what is there.
struct HeadsBackward {
  Heads forward;
  uint16_t* dqkv = nullptr;
  float *dq_weight = nullptr, *dq_bias = nullptr, *dk_weight = nullptr, *dk_bias = nullptr;
  float* partials = nullptr;  // heads_partials(shape) values; null without norms
};
int64_t heads_partials(const HeadsShape& shape);
void prepare_heads_backward(const HeadsBackward& task, void* stream);
void prepare_heads_backward_plain(const HeadsBackward& task);

}  // namespace vitrail::kernels
