#pragma once
/// Random tensors as functions of place, and the two regularisers that draw from them.
///
/// Shapes   B batch; sample_ids int64 [B], the samples' global indices, on the device of the result.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/core/philox.h"

namespace vitrail::ops {

/// Uniforms in [0, 1): result[b][e] = core::uniform(key, sample_ids[b], e), fp32 [B, per_sample]; the same bits on every
/// device.
at::Tensor uniform(const core::DrawKey& key, const at::Tensor& sample_ids, int64_t per_sample);

/// The part of a whole tensor [B, whole...] that x [B, ...] is: its first index on each axis after the batch. Elements
/// past the end of the whole are zeroed.
struct Window {
  std::vector<int64_t> start, whole;
};

/// Zeroes each element of x [B, ...] with probability `rate` in [0, 1) and divides the rest by 1 - rate.
/// Paper    Srivastava et al. 2014.
at::Tensor dropout(const at::Tensor& x, double rate, const core::DrawKey& key,
                   const at::Tensor& sample_ids);
/// The same elements as if the whole tensor had been drawn for.
at::Tensor dropout(const at::Tensor& x, double rate, const core::DrawKey& key,
                   const at::Tensor& sample_ids, const Window& window);

/// Zeroes whole samples of a residual branch x [B, ...] with probability `rate` in [0, 1) and divides the rest by
/// 1 - rate.
/// Paper    Huang et al. 2016, arXiv:1603.09382 (stochastic depth).
at::Tensor drop_path(const at::Tensor& x, double rate, const core::DrawKey& key,
                     const at::Tensor& sample_ids);

}  // namespace vitrail::ops
