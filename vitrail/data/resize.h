#pragma once
/// Bilinear (trilinear) resize with half-pixel centres, antialiased when shrinking; one axis after
/// the other. Masks by the nearest pixel.

#include <cstdint>
#include <vector>

#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// Differs  equals torch's interpolate(mode="bilinear", antialias=True, align_corners=False) on the
///          values as floats, in 2-D within rounding; the same rule along every axis of a volume.
///          The aspect ratio is not kept.
/// returns  floats, in the file's units (0 .. full_scale).
Pixels resize(const Pixels& pixels, const std::vector<int64_t>& sides);

/// The same of the part of `pixels` that begins at `origin` and has `extent` pixels, into the memory
/// that `result` already has.
void resize(const Pixels& pixels, const std::vector<int64_t>& origin,
            const std::vector<int64_t>& extent, const std::vector<int64_t>& sides, Pixels& result);

/// Result pixel i of an axis is source pixel floor((i + 1/2) * input / output), the one whose
/// centre is nearest, equal to torch's interpolate(mode="nearest-exact").
Mask resize(const Mask& mask, const std::vector<int64_t>& sides);

}  // namespace vitrail::data
