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
  /// End t: makes flow.x_BTD of the batch (t = 0) or of the trunk before; the last end fills `out`. Those of `wanted`
  /// that this end knows go to out.taps.
  virtual void run_end(int t, Flow& flow, const data::Batch& batch, const nn::Draws& draws,
                       Output& out, const std::vector<std::string>& wanted) = 0;
  /// Name of a block as a tap of the whole model: "decoder_blocks.3".
  virtual std::string tap_of_block(int trunk, int block) const = 0;
  /// throws ConfigError naming the taps that exist when one is unknown.
  virtual void check_taps(const std::vector<std::string>& wanted) const = 0;
  /// The end that uses an end's unit (UnitSpec without a stack).
  virtual int end_of(const std::string& unit) const = 0;
};

/// One end, or some blocks of one trunk.
struct ChainPiece {
  int end = -1;    // -1: blocks
  int trunk = -1;  // -1: an end
  nn::BlockRange range;
};

/// Runs one piece on what flows; the taps of a trunk are gathered in flow.inner until the next end has read them. Those of
/// `wanted` that the piece makes go to out.taps. All pieces in order are Model::forward.
void run(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
         const nn::Draws& draws, Output& out, const std::vector<std::string>& wanted = {});

}  // namespace vitrail::models
