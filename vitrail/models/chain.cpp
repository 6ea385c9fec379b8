#include "vitrail/models/chain.h"

#include <algorithm>
#include <iterator>

namespace vitrail::models {
namespace {

void run_blocks(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
                const nn::Draws& draws) {
  nn::Stack& trunk = *chain.trunks()[piece.trunk];
  const int end = piece.range.end < 0 ? trunk.depth() : piece.range.end;
  std::vector<int> taps;
  std::ranges::copy_if(chain.taps(piece.trunk), std::back_inserter(taps),
                       [&](int block) { return block >= piece.range.first && block < end; });
  const nn::Context context = chain.context(piece.trunk, flow, batch, draws);
  std::vector<at::Tensor> outputs;
  flow.x_BTD = trunk.forward(flow.x_BTD, context, {piece.range.first, end}, taps, &outputs);
  std::ranges::move(outputs, std::back_inserter(flow.inner));
}

}  // namespace

void run(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
         const nn::Draws& draws, Output& out) {
  if (piece.trunk >= 0) return run_blocks(chain, piece, flow, batch, draws);
  chain.run_end(piece.end, flow, batch, draws, out);
  flow.inner.clear();
}

}  // namespace vitrail::models
