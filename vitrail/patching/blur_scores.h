#pragma once
/// What square patches lose when their image is reduced and enlarged again, for whole batches.
///
/// Rule     score = sqrt(edge * mean over channels and pixels of (copy - image)^2), where the copy went through bilinear
///          resizing by 1 / factor and back (half-pixel centres, no smoothing, edges repeated), factor = 2^level.
///          NaN counts as 0, infinity as the largest float.
/// Exact    one order of additions and roundings for every batch, thread count and device: equal bits everywhere.
/// Memory   no copy of the image is written.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::patching {

/// Patches of edge patch << level that tile the image; pointers on the device that computes.
struct BlurLevel {
  const float* image = nullptr;  // [batch, channels, height, width]
  float* scores = nullptr;       // [batch, height / edge, width / edge]
  int64_t batch = 0, channels = 0;
  int32_t height = 0, width = 0;
  int32_t patch = 1, level = 1;  // level at least 1

  VT_HOST_DEVICE int32_t edge() const { return patch << level; }
  VT_HOST_DEVICE int32_t rows() const { return height / edge(); }
  VT_HOST_DEVICE int32_t columns() const { return width / edge(); }
  VT_HOST_DEVICE int64_t patches() const { return batch * rows() * columns(); }
};

/// On the CPU, on torch's threads.
/// throws   Error when patches do not tile the image.
void blur_scores(const BlurLevel& level);
/// On a GPU: one kernel, asynchronous on `stream` (a cudaStream_t).
/// throws   the same; Error in a build without CUDA.
void blur_scores_gpu(const BlurLevel& level, void* stream);

/// What both check first.
void check_blur_level(const BlurLevel& level);

}  // namespace vitrail::patching
