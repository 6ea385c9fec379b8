#pragma once
/// Decorrelated attention: a loss on what the heads of chosen blocks have in common.
///
/// heads         A_b [N, T E]: per sample what each head's attention gives, before the projection, all tokens in one row.
///               C_b = A_b A_b^T / |A_b|_F^2;  loss of a block = sum over i != j of mean_b C_b[i, j]^2;  0 when the heads
///               are orthogonal, (N - 1) / N when they are equal. The loss is the mean over the chosen blocks. It is a mean
///               over samples, so ranks with equally many samples average to the whole.
/// token_thirds  as the first program has it, for comparison with its numbers: A_b = the output of the last chosen block,
///               read as N rows of T D / N numbers in the order of memory: row i is the i-th N-th of the token sequence.
///               loss = (1 / B) (sum_b |C_b|_F^2 - sum_{k < min(N, B)} sum_j C_k[k, j]^2): the diagonals stay. As
///               |C_b|_F^2 >= 1 / N and at most one row of it is taken out of each of N samples, the loss of orthogonal rows
///               of equal length, (1 / N) (1 - 1 / B) for B >= N, is where it ends in practice. It depends on which samples
///               come first in a batch, so it is not the same on one rank and on several.
/// Key masks     tokens that are not attended to count as 0.
/// Shapes        B batch, T tokens, D width, N heads, E = D / N.

#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// Loss of one block; A_BTD as a tap of kind attention gives it (the heads side by side). real_BT: bool, undefined = all.
at::Tensor head_correlation(const at::Tensor& attended_BTD, int64_t num_heads,
                            const at::Tensor& real_BT = {});
/// The loss of form token_thirds; x_BTD: a block's output.
at::Tensor token_part_correlation(const at::Tensor& x_BTD, int64_t num_heads,
                                  const at::Tensor& real_BT = {});

/// What the training section asks of one trunk.
class Decatt {
 public:
  Decatt() = default;
  /// throws ConfigError for a block that the trunk lacks.
  Decatt(const config::Decatt& options, int depth, int64_t num_heads);

  /// Whether there is something to add.
  bool any() const { return weight_ > 0.0; }
  double weight() const { return weight_; }
  /// What the loss reads of the trunk.
  const std::vector<nn::Tap>& taps() const { return taps_; }
  /// Scalar, without the weight; `tapped` as taps() asks, real_BT as Context::key_mask_BT.
  at::Tensor loss(const std::vector<at::Tensor>& tapped, const at::Tensor& real_BT) const;

 private:
  double weight_ = 0.0;
  bool of_heads_ = true;
  int64_t num_heads_ = 0;
  std::vector<nn::Tap> taps_;
};

}  // namespace vitrail::models
