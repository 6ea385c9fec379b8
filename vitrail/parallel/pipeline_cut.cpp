#include "vitrail/parallel/pipeline_cut.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::parallel {

PipelineCut::PipelineCut(models::Chain& chain, int stages) : stages_(stages) {
  for (const nn::Stack* trunk : chain.trunks()) {
    first_.push_back(blocks_);
    blocks_ += trunk->depth();
  }
  first_.push_back(blocks_);
  VT_REQUIRE(ConfigError, stages >= 1 && stages <= std::max(1, blocks_),
             "[pipeline] parallel.pipeline x pipeline_parts must not exceed the model's {} blocks "
             "but is {}",
             blocks_, stages);
}

int PipelineCut::stage_of_block(int trunk, int block) const {
  // The stage s with s N / S <= n < (s + 1) N / S, rounded down: runs differ by one block at most.
  const int64_t number = first_[trunk] + block;
  return static_cast<int>(((number + 1) * stages_ - 1) / blocks_);
}

int PipelineCut::stage_of_end(int t) const {
  const bool is_last = t + 1 == static_cast<int>(first_.size());
  return is_last || first_[t] == blocks_ ? stages_ - 1 : stage_of_block(t, 0);
}

std::vector<models::ChainPiece> PipelineCut::pieces(int stage) const {
  std::vector<models::ChainPiece> pieces;
  const int trunks = static_cast<int>(first_.size()) - 1;
  for (int t = 0; t <= trunks; ++t) {
    if (stage_of_end(t) == stage) pieces.push_back({.end = t, .trunk = -1, .range = {}});
    if (t == trunks) break;
    const int depth = first_[t + 1] - first_[t];
    nn::BlockRange range{depth, depth};
    for (int i = depth - 1; i >= 0; --i)
      if (stage_of_block(t, i) == stage) range = {i, range.first == depth ? i + 1 : range.end};
    if (range.first < range.end) pieces.push_back({.end = -1, .trunk = t, .range = range});
  }
  return pieces;
}

}  // namespace vitrail::parallel
