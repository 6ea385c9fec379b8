#pragma once
/// Where a chain is cut into stages: even runs of blocks over all trunks, every end with a block beside it.

#include <vector>

#include "vitrail/models/chain.h"

namespace vitrail::parallel {

class PipelineCut {
 public:
  /// throws ConfigError when there are more stages than blocks.
  PipelineCut(models::Chain& chain, int stages);

  int stages() const { return stages_; }
  /// Of block `block` of trunk `trunk`.
  int stage_of_block(int trunk, int block) const;
  /// Of end t: that of the block after it, the last end's that of the last block.
  int stage_of_end(int t) const;
  /// What a stage runs, in order.
  std::vector<models::ChainPiece> pieces(int stage) const;

 private:
  int stages_, blocks_ = 0;
  std::vector<int> first_;  // number of the first block of each trunk among all; then their count
};

}  // namespace vitrail::parallel
