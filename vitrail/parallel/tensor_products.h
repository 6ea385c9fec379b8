#pragma once
/// Products with divided weights and the collectives around them, as conjugate pairs: what is the identity in forward is
/// a sum over the ranks in backward, what is gathered is scattered.
///
/// Pieces    a product is cut along tokens; a piece's collective runs while the next is computed. One piece is the whole.
/// Overlap   the gradient of an input is summed while those of the weights are computed, in pieces or not.
/// Split     tokens between layers are divided over the ranks in equal runs of l = L / ranks: gathered where they enter,
///           summed and scattered where they leave. What was gathered is not kept but gathered again for backward.
/// Shapes    B batch, L tokens, T ranks, l = L / T, D width, F = a rank's part of the outputs or inputs.
/// Paper     Shoeybi et al. 2019, arXiv:1909.08053; split: Korthikanti et al. 2022, arXiv:2205.05198.

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/linear.h"
#include "vitrail/parallel/tensor_group.h"

namespace vitrail::parallel {

/// How layers of one model are divided.
struct TensorDivision {
  TensorGroup group;
  int64_t pieces = 1;
  bool split_tokens = false;
  /// Where a collective runs that only pieces can hide.
  Where place() const { return pieces > 1 ? Where::beside : Where::here; }
};

/// Layers whose outputs are divided, all reading x [..., D] (split: [B, l, D]) -> each [..., F] (split: [B, L, F]).
/// Backward sums the gradient of x over ranks and layers in one collective.
std::vector<at::Tensor> product_of_columns(const std::shared_ptr<const TensorDivision>& division,
                                           const at::Tensor& x,
                                           const std::vector<nn::Linear*>& layers);
/// x [..., F] (split: [B, L, F]) times a weight [D, F] whose inputs are divided -> the sum over ranks [..., D] (split:
/// [B, l, D]).
at::Tensor product_of_rows(const std::shared_ptr<const TensorDivision>& division,
                           const at::Tensor& x, const at::Tensor& weight);

/// x [...] of every rank -> [ranks, ...]; the gradient is this rank's part of what comes back, which is the same on all.
at::Tensor gather_alike(const std::shared_ptr<const TensorDivision>& division, const at::Tensor& x);

}  // namespace vitrail::parallel
