#pragma once
/// What the stack hands to every block besides the tokens.

#include <ATen/core/Tensor.h>

#include "vitrail/nn/draws.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {

/// Which tokens of a sample a rank holds; `whole` 0 = all of them. The last ranks may hold tokens past the end, which
/// mean nothing and are cut off where it matters.
struct TokenWindow {
  int64_t start = 0, whole = 0;
};

/// Shapes   B batch, T tokens, D width.
/// Divided tokens (window.whole > 0): window is of the tokens between layers. rotary is of those whose q and k this rank
/// computes: the same, or with parallel.split_norms the runs of all tensor ranks, of which T is the equal part number
/// (tensor rank). key_mask_BT stays that of the whole sample.
struct Context : Draws {
  Context() = default;
  Context(const Draws& draws) : Draws(draws) {}

  ops::Rotary rotary;  // of these tokens; undefined = none
  TokenWindow window;
  at::Tensor
      key_mask_BT;  // bool, true = a real token; undefined = all are. Others are not attended to.
  bool key_mask_is_prefix = false;  // known: the real tokens of every sample come first
  at::Tensor
      condition_BD;  // what conditioned blocks add; its gradient flows back through the stack
  /// Not null: attention puts there what its heads read, [B, T, D] with the heads side by side, before proj.
  at::Tensor* attended_BTD = nullptr;
};

}  // namespace vitrail::nn
