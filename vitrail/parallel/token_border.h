#pragma once
/// The two ends of a trunk whose tokens are divided: slices on the way in, whole samples on the way out.
///
/// Runs      L tokens over R ranks: rank r holds tokens [r T, (r + 1) T) with T = ceil(L / R); past the end are zeros.
///           R = sequence x tensor ranks of the group, tensor ranks neighbours; the T of a sequence rank's tensor ranks
///           together are one run too.
/// Scaling   leave multiplies what enters backward by the number of sequence ranks, enter divides what leaves it
///           (sequence.h says why); tensor ranks are not counted.
/// Shapes    B batch, L tokens of a sample, T tokens of a rank, D width.

#include <cstdint>

#include "vitrail/comm/communicator.h"
#include "vitrail/nn/stack.h"

namespace vitrail::parallel {

/// Tokens of a rank when `tokens` are divided over `ranks`.
constexpr int64_t run_length(int64_t tokens, int64_t ranks) { return (tokens + ranks - 1) / ranks; }

class TokenBorder : public nn::StackBorder {
 public:
  /// `group` of sequence_ranks x its tensor ranks outlives the border.
  TokenBorder(comm::Communicator& group, int64_t sequence_ranks);
  at::Tensor enter(const at::Tensor& x_BLD, nn::Context& context) override;
  at::Tensor leave(const at::Tensor& x_BTD, int64_t whole_tokens) override;

 private:
  comm::Communicator& group_;
  int64_t sequence_ranks_, tensor_ranks_;
};

}  // namespace vitrail::parallel
