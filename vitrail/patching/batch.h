#pragma once
/// Adaptive patching of whole batches where they lie: on the CPU with one thread a sample, on a GPU in
/// kernels over the batch, without host synchronisation. Both give the same bytes, maps and boxes.
///
/// Shapes   B batch, C channels, k axes, L leaves, P patch edge: image [B, C, sides...] float,
///          tokens [B, C, L, P^k] float, boxes [B, L, 2k] float (lows, then highs, in pixels; no extent =
///          padding). All contiguous, on one device.
/// Errors   Error for shapes that do not fit.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/patching/options.h"

namespace vitrail::patching {

/// What edges are looked for with: int32 [B, 3], rows (blur, low, high) of EdgeOptions. training:
/// training_edges(options, seed, epoch, sample id), otherwise EdgeOptions{}. On sample_ids' device.
at::Tensor edge_options(const LeafOptions& options, uint64_t seed, int64_t epoch,
                        const at::Tensor& sample_ids, bool training);

/// image -> uint8 of its shape; range_BC2 as data::Batch::pixel_range (or undefined). NaN and infinities: on the CPU an
/// Error that names the sample, on a GPU 0 (their tokens stay NaN, so that the loss tells of them).
at::Tensor to_bytes(const at::Tensor& image, const at::Tensor& range_BC2);

/// bytes [B, C, sides...] -> importance uint8 [B, sides...]; edges_B3 of edge_options.
at::Tensor importance_maps(const at::Tensor& bytes, const LeafOptions& options,
                           const at::Tensor& edges_B3);

/// importance [B, sides...] -> boxes; the tree of tree.h.
at::Tensor leaf_boxes(const at::Tensor& importance, const LeafOptions& options);

/// The same greedy division by scores of the cells themselves (mixed resolution): scores[l] float [B, cells...] of the
/// cells of edge min_leaf * 2^l, where the largest is divided first, of equals the larger cell, of those the first in
/// Morton order. It begins with all cells of the last level and ends with `count` leaves; cells of level 0 are not
/// divided. -> boxes [B, count, 2k].
/// throws   Error when count is no number of cells + n (2^k - 1), or above the number of finest cells.
at::Tensor divide(const std::vector<at::Tensor>& scores, int64_t min_leaf, int64_t count,
                  Order order);

/// Leaves of the image -> tokens. Differentiable in `image`: the gradient is the exact adjoint.
at::Tensor serialise(const at::Tensor& image, const at::Tensor& boxes, int64_t patch_size,
                     Resample resample);
/// Tokens -> image [B, C, sides...]; pixels in no box are 0. Differentiable in `tokens`, likewise.
at::Tensor paste(const at::Tensor& tokens, const at::Tensor& boxes, at::IntArrayRef sides,
                 Resample resample);

/// Classes int64 [B, sides...] -> [B, L, P^k]; padding and places without a vote are -1.
at::Tensor serialise_labels(const at::Tensor& labels, const at::Tensor& boxes, int64_t patch_size,
                            LabelRule rule);
/// The same as shares of each class, float [B, classes, L, P^k]: area averages of the classes' masks (-1 is in none).
at::Tensor serialise_shares(const at::Tensor& labels, int64_t classes, const at::Tensor& boxes,
                            int64_t patch_size);

struct LeafTensors {
  at::Tensor tokens, boxes;
};
/// All steps. options.per_channel: a tree for each channel, tokens [B, 1, C * L, P^k] and boxes [B, C * L, 2k], channel
/// after channel. options.compat: on the CPU, copied to the image's device. `importance` (or undefined) takes the
/// place of the map.
LeafTensors make_leaves(const at::Tensor& image, const at::Tensor& range_BC2,
                        const LeafOptions& options, const at::Tensor& edges_B3,
                        const at::Tensor& importance = {});

}  // namespace vitrail::patching
