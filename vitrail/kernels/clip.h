#pragma once
/// The factor that clipping applies to a gradient; one source for CPU and GPU.

#include <cmath>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::kernels {

VT_HOST_DEVICE inline float clip_factor(float norm, float max_norm) {
  if (!std::isfinite(norm)) return 0.0f;
  if (max_norm <= 0.0f) return 1.0f;
  const float factor = max_norm / (norm + 1e-6f);
  return factor < 1.0f ? factor : 1.0f;
}

}  // namespace vitrail::kernels
