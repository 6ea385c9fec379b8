#pragma once
/// A model as a chain: end 0, trunk 0, end 1, trunk 1, ..., the last end. forward() runs all of it; a pipeline stage runs
/// some ends and some blocks of some trunks.
///
/// Batch     every stage has the same batch and draws, so whatever follows from those alone (masks, key masks, rotary
///           positions) is made anew where it is needed and does not flow.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/data/batch.h"
#include "vitrail/models/model.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/draws.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// What flows from part to part, with its gradients.
struct Flow {
  at::Tensor x_BTD;               // into a trunk, out of it
  std::vector<at::Tensor> inner;  // outputs of the blocks Chain::taps of the trunk before, in order
  at::Tensor condition_BD;        // what conditioned blocks add; undefined = none
};

class Chain {
 public:
  virtual ~Chain() = default;
  /// Trunks in the order in which forward runs them; ends are one more.
  virtual std::vector<nn::Stack*> trunks() = 0;
  /// Blocks of trunk t whose outputs the next end reads.
  virtual std::vector<int> taps(int /*t*/) const { return {}; }
  /// In what trunk t runs; flow.condition_BD goes into it.
  virtual nn::Context context(int t, const Flow& flow, const data::Batch& batch,
                              const nn::Draws& draws) = 0;
  /// End t: makes flow.x_BTD of the batch (t = 0) or of the trunk before; the last end fills `out`.
  virtual void run_end(int t, Flow& flow, const data::Batch& batch, const nn::Draws& draws,
                       Output& out) = 0;
  /// The end that uses an end's unit (UnitSpec without a stack).
  virtual int end_of(const std::string& unit) const = 0;
};

/// One end, or some blocks of one trunk.
struct ChainPiece {
  int end = -1;    // -1: blocks
  int trunk = -1;  // -1: an end
  nn::BlockRange range;
};

/// Runs one piece on what flows; the taps of a trunk are gathered in flow.inner until the next end has read them. All
/// pieces in order are Model::forward.
void run(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
         const nn::Draws& draws, Output& out);

}  // namespace vitrail::models
