#pragma once
/// Random tensors of the diffusion process, as functions of place.
///
/// Shapes   B batch; sample_ids int64 [B], the samples' global indices, on the device of the result.
/// Draws    Stream::time: layer 0 the level, 1 whether the class is hidden, 2 dropout in the time embedding;
///          Stream::noise: layer 0 training, 1 the start of sampling, 2 a step of sampling (its level as the step).

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/core/philox.h"

namespace vitrail::models {

enum class TimeDraw : uint16_t { level = 0, hide_class = 1, dropout = 2 };
enum class NoiseDraw : uint16_t { training = 0, start = 1, step = 2 };

/// Standard normal values [B, shape...], fp32, by Box and Muller from neighbouring values of ops::uniform; |value| < 5.8.
/// Computed in fp64 from uniforms of equal bits: devices differ only where rounding to fp32 is on the edge.
at::Tensor normal(const core::DrawKey& key, const at::Tensor& sample_ids, at::IntArrayRef shape);

/// Levels in {0 ... T-1}, int64 [B], all equally likely.
at::Tensor uniform_levels(const core::DrawKey& key, const at::Tensor& sample_ids, int64_t T);

}  // namespace vitrail::models
