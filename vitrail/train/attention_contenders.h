#pragma once
/// Ways of computing attention behind one interface, on the same packed values (bench_attention.h).

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/kernels/attention.h"

namespace vitrail::train {

/// Random operands: packed [B, L, (N + 2 Nkv) E] holds q, k, v of a token side by side.
struct AttentionValues {
  kernels::AttentionShape shape;
  at::Tensor packed, dout, lengths;  // dout [B, L, N, E]; lengths int32 [B] or undefined

  AttentionValues(const kernels::AttentionShape& shape, at::Device device, double scale);
  /// Views [B, L, N, E] of a tensor laid out as `packed`: 0 q, 1 k, 2 v.
  at::Tensor part(const at::Tensor& like_packed, int index) const;
};

/// What a way computed: views [B, L, N or Nkv, E]; lse fp32 [B, N, L] where it gives one.
struct AttentionResult {
  at::Tensor out, lse, dq, dk, dv;
};

struct AttentionContender {
  std::string kind;
  std::function<void()> forward, both;
  std::function<AttentionResult()> result;  // after both(), or forward()
  int64_t workspace_bytes = 0;
  double build_ms = 0;
};

/// A kernel on these values, its gradients written packed. Memory is NaN before the first run.
AttentionContender contender(std::shared_ptr<kernels::AttentionKernel> kernel,
                             const AttentionValues& values);
/// Strides of packed operands and of an out [B, L, N, E].
kernels::AttentionStrides packed_strides(const kernels::AttentionShape& shape);

/// All that fit the shape, on the values' device; only those named when `kinds` is not empty.
std::vector<AttentionContender> attention_contenders(const AttentionValues& values,
                                                     const std::vector<std::string>& kinds);

/// The formula in fp64, of the query heads that share k and v head `kv_head` of one sample.
struct AttentionTruth {
  at::Tensor out, lse, dq, dk, dv;  // [L, group, E], [group, L], [L, group, E], [L, E], [L, E]
  // Sums of squares of dq and dk without D, the part of dS = P (dP - D) that cancels: with one key all of it.
  double dq_terms = 0, dk_terms = 0;
};
AttentionTruth attention_truth(const AttentionValues& values, int64_t sample, int64_t kv_head,
                               bool backward);

struct AttentionError {
  double out = 0, lse = 0, dq = 0, dk = 0, dv = 0;  // relative; lse: largest absolute
};
/// dq and dk are measured against no less than 2^-8 of what cancels in them: less than that no product of bf16 values has
/// to keep, and where one key is all there is they are 0 and every rounding would be infinitely wrong.
/// Over the tokens that count; infinite where a value that must be finite is not, or a dk or dv past the length is not 0.
AttentionError attention_error(const AttentionValues& values, const AttentionResult& result,
                               int64_t sample, int64_t kv_head, bool backward);

}  // namespace vitrail::train
