#include "vitrail/models/chain.h"

#include <algorithm>
#include <iterator>

namespace vitrail::models {
namespace {

void run_blocks(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
                const nn::Draws& draws, Output& out, const std::vector<std::string>& wanted) {
  nn::Stack& trunk = *chain.trunks()[piece.trunk];
  const int end = piece.range.end < 0 ? trunk.depth() : piece.range.end;
  std::vector<int> taps;
  for (int block = piece.range.first; block < end; ++block)
    if (std::ranges::count(wanted, chain.tap_of_block(piece.trunk, block)) > 0)
      taps.push_back(block);
  const auto asked = static_cast<std::ptrdiff_t>(taps.size());
  std::ranges::copy_if(chain.taps(piece.trunk), std::back_inserter(taps),
                       [&](int block) { return block >= piece.range.first && block < end; });
  const nn::Context context = chain.context(piece.trunk, flow, batch, draws);
  std::vector<at::Tensor> outputs;
  flow.x_BTD = trunk.forward(flow.x_BTD, context, {piece.range.first, end},
                             {taps.begin(), taps.end()}, &outputs);
  for (std::ptrdiff_t i = 0; i < asked; ++i)
    out.taps[chain.tap_of_block(piece.trunk, taps[i])] = outputs[i];
  std::move(outputs.begin() + asked, outputs.end(), std::back_inserter(flow.inner));
}

}  // namespace

void run(Chain& chain, const ChainPiece& piece, Flow& flow, const data::Batch& batch,
         const nn::Draws& draws, Output& out, const std::vector<std::string>& wanted) {
  if (piece.trunk >= 0) return run_blocks(chain, piece, flow, batch, draws, out, wanted);
  chain.run_end(piece.end, flow, batch, draws, out, wanted);
  flow.inner.clear();
}

}  // namespace vitrail::models
