#pragma once
/// What the stack hands to every block besides the tokens.

#include <ATen/core/Tensor.h>

#include "vitrail/nn/draws.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {

/// Shapes   B batch, T tokens, D width.
struct Context : Draws {
  Context() = default;
  Context(const Draws& draws) : Draws(draws) {}

  ops::Rotary rotary;  // of these tokens; undefined = none
  at::Tensor
      key_mask_BT;  // bool, true = a real token; undefined = all are. Others are not attended to.
  at::Tensor
      condition_BD;  // what conditioned blocks add; its gradient flows back through the stack
};

}  // namespace vitrail::nn
