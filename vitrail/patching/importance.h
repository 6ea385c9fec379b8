#pragma once
/// Maps of importance besides edges: where an image has detail, in 256 steps.
///
/// Maps     gradient, variance (options.h): whole numbers, equal on every machine; of several channels
///          the largest. A constant image has none. A volume's gradient is that of edges.h, so that a
///          step of the same height means the same in images and volumes.
/// Borders  mirrored (c b|a b c), but for the Sobel operator, which goes on with the last value.
/// Choice   edges: what matters are outlines, and contrast is enough to pass a threshold; noise below it
///          counts nothing, and a strong edge no more than a weak one. gradient: contrast differs within
///          an image (fluorescence, MRI with a bias field), or is so low that Canny finds nothing; strong
///          edges draw more leaves, noise draws them evenly. variance: texture and spots that have no
///          outline; it sees single pixels, so noise counts with its square: of noisy images use gradient
///          with a blur of 5, or edges.
/// Threads  pure functions.

#include <cstdint>
#include <span>

#include "vitrail/patching/edges.h"
#include "vitrail/patching/options.h"

namespace vitrail::patching {

/// bytes [C, sides...] of 2 or 3 sides -> the options' importance [sides...]. Edges go by all of
/// `edges`, gradient by its blur.
/// throws   Error as edge_map does, or when there is no channel to be given.
void importance_map(std::span<const uint8_t> bytes, int64_t channels,
                    std::span<const int64_t> sides, const LeafOptions& options,
                    const EdgeOptions& edges, std::span<uint8_t> map, const Runner& run = {});

}  // namespace vitrail::patching
