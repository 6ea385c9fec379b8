#pragma once
/// Bilinear (trilinear) resize with half-pixel centres, antialiased when shrinking; one axis after
/// the other.

#include <cstdint>
#include <vector>

#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// An image of floats, channel last like Pixels.
struct FloatPixels {
  std::vector<int64_t> sides;
  int64_t channels = 1;
  std::vector<float> values;
  float full_scale = 255.0f;
};

/// Differs  equals torch's interpolate(mode="bilinear", antialias=True, align_corners=False) on the
///          values as floats, in 2-D within rounding; the same rule along every axis of a volume.
///          The aspect ratio is not kept.
/// Units    values stay in the file's units (0 .. full_scale).
FloatPixels resize(const Pixels& pixels, const std::vector<int64_t>& sides);

}  // namespace vitrail::data
