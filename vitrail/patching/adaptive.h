#pragma once
/// Adaptive patching of one image or volume on the CPU: a fixed number of leaves of a tree over it, each
/// resampled to one patch. batch.h does the same for batches.
///
/// Paper    Zhang et al. 2024, arXiv:2404.09707.
/// Steps    bytes, importance (edges.h, importance.h), leaf_boxes (tree.h), serialise (resample.h);
///          options.compat: compat_ucf.h instead.
/// Shapes   C channels, L = fixed_length, k axes, P patch edge: image [C, sides...], range [C, 2] as
///          data::Batch::pixel_range or empty, tokens [C, L, P^k], boxes [L, 2k] low corner then high
///          corner in pixels. Where the tree has fewer leaves the rest is padding: boxes of no extent, all
///          0, with tokens 0.
/// Threads  pure functions, one sample a call, on the calling thread.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/edges.h"
#include "vitrail/patching/options.h"

namespace vitrail::patching {

/// The sizes of one sample's rows.
int64_t token_values(const LeafOptions& options, int64_t channels, int64_t axes);
int64_t box_values(const LeafOptions& options, int64_t axes);

/// What a training sample uses: drawn_edges, or with compat drawn_ucf_edges.
EdgeOptions training_edges(const LeafOptions& options, uint64_t seed, int64_t epoch, int64_t index);

/// importance [sides...] -> boxes; returns the number of real leaves.
/// throws   Error for other than 2 or 3 sides, options below 1, spans of another size.
int64_t leaf_boxes(std::span<const uint8_t> importance, std::span<const int64_t> sides,
                   const LeafOptions& options, std::span<float> boxes);

/// All steps, into the caller's memory; returns the number of real leaves. `edges` is EdgeOptions{} in
/// evaluation and training_edges() in training.
/// Memory   about 30 bytes a pixel, freed before it returns.
/// throws   Error as the steps do, and for options.per_channel; NaN and infinite pixels are named.
int64_t patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                 std::span<const float> range, const LeafOptions& options, const EdgeOptions& edges,
                 std::span<float> tokens, std::span<float> boxes);

struct Leaves {
  std::vector<float> tokens, boxes;
  std::vector<uint8_t> importance;  // [sides...]
  int64_t count = 0;                // real leaves; the rest is padding
};

/// The same into new memory, and the importance with it.
Leaves patchify(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                std::span<const float> range, const LeafOptions& options,
                const EdgeOptions& edges = {});

}  // namespace vitrail::patching
