#pragma once
/// Adaptive patching of one image or volume: a fixed number of leaves of a tree over it, each
/// resampled to one patch.
///
/// Paper    Zhang et al. 2024, arXiv:2404.09707.
/// Steps    to_bytes and edge_map (edges.h), leaf_boxes (tree.h), serialise (resample.h).
/// Shapes   C channels, L = fixed_length, k axes, P patch edge: image [C, sides...], tokens [C, L, P^k],
///          boxes [L, 2k] low corner then high corner in pixels. Where the tree has fewer leaves the
///          rest is padding: boxes of no extent, all 0, with tokens 0.
/// Threads  pure functions, one sample a call, on the calling thread.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/edges.h"
#include "vitrail/patching/tree.h"

namespace vitrail::patching {

struct AdaptiveOptions {
  int64_t fixed_length = 196;
  int64_t patch_size = 16;
  int64_t min_leaf = 0;  // edge of the smallest leaf; 0 = patch_size
  int64_t value_floor = -1;
  Order order = Order::morton;
  ByteRange range;
};

/// The sizes of one sample's rows.
int64_t token_values(const AdaptiveOptions& options, int64_t channels, int64_t axes);
int64_t box_values(const AdaptiveOptions& options, int64_t axes);

/// importance [sides...] -> boxes; returns the number of real leaves.
/// throws   Error for other than 2 or 3 sides, options below 1, spans of another size.
int64_t leaf_boxes(std::span<const uint8_t> importance, std::span<const int64_t> sides,
                   const AdaptiveOptions& options, std::span<float> boxes);

/// All steps, into the caller's memory; returns the number of real leaves. `edges` is EdgeOptions{} in
/// evaluation and drawn_edges(seed, epoch, index) in training.
/// Memory   about 30 bytes a pixel, freed before it returns.
/// throws   Error as the steps do; NaN and infinite pixels are named.
int64_t patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                 const AdaptiveOptions& options, const EdgeOptions& edges, std::span<float> tokens,
                 std::span<float> boxes);

struct Leaves {
  std::vector<float> tokens, boxes;
  std::vector<uint8_t> edges;  // [sides...]
  int64_t count = 0;           // real leaves; the rest is padding
};

/// The same into new memory, and the edge map with it.
Leaves patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                const AdaptiveOptions& options, const EdgeOptions& edges = {});

}  // namespace vitrail::patching
