#pragma once
/// Leaves as UCF-VIT makes them, for comparison: its order, its rules and their consequences. Slow.
///
/// Paper    Zhang et al. 2024, arXiv:2404.09707, and the program published with it.
/// Images   equal sides, a power of two; a number of leaves of 3 n + 1 (2-D) or 7 n + 1 (3-D).
/// Division the leaf with the most edge pixels goes first, of equals the first in the list; when that
///          one's edge is 2, all ends, so that a constant image has few leaves and the rest is padding.
/// Order    children take their parent's place: along the columns first; in images the lower half of the
///          rows comes before the upper, in volumes every axis goes from low to high.
/// Differs  channels stay apart (there a reshape mixes them); an edge of a volume of several channels is
///          judged by its own channel's direction.
/// Threads  pure functions.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/edges.h"

namespace vitrail::patching {

/// What a training sample uses: smoothing 0, 1, 3 or 5 with equal chance, low uniform in [50, 100), high =
/// low + 50; drawn by Philox from the run's seed, the epoch and the global sample index.
EdgeOptions drawn_ucf_edges(uint64_t seed, int64_t epoch, int64_t index);

/// What is summed: a cell's value is the whole part of sum / unit.
struct UcfMap {
  std::vector<int32_t> values;  // [sides...]
  int64_t unit = 1;
};

/// bytes [C, sides...]. Images: Canny edges, or uniform noise where options.blur is 0, drawn by Philox
/// from the image's bytes. Volumes: Canny edges of each slice across the first axis after a Gaussian of
/// standard deviation options.blur, but only in the upper half of the directions that occur.
/// throws   Error as edge_map does.
UcfMap ucf_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
               const EdgeOptions& options);

/// -> boxes [L, 2k], low corner then high corner, L = fixed_length; returns the number of real leaves.
/// throws   Error for sides or a fixed_length it does not know.
int64_t ucf_boxes(const UcfMap& map, std::span<const int64_t> sides, int64_t fixed_length,
                  std::span<float> boxes);

/// image [C, sides...] -> tokens [C, L, P^k]. Images: bicubic with half-pixel centres. Volumes: linear
/// between the leaf's first and last pixel, corners on corners.
void ucf_serialise(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                   std::span<const float> boxes, int64_t patch_size, std::span<float> tokens);

}  // namespace vitrail::patching
