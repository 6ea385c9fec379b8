#pragma once
/// A block of the resolution-aware transformer: every scale is grouped by itself, then all groups of all scales attend to
/// each other in one pre-norm transformer block.
///
/// As a nn::Block it takes and gives tokens of all scales, one scale after the other, and gives fewer than it takes; a
/// stack of them is one trunk like any other.
/// Masks    Context::key_mask_BT, where given, is the valid cells of the tokens that enter the first block of the stack
///          (nn/grouping.h says what they mean); every block works out what is left of them.
/// Shapes   B batch, L tokens that come, T that go, D width.

#include <memory>
#include <vector>

#include "vitrail/nn/block.h"
#include "vitrail/nn/grouping.h"

namespace vitrail::nn {

/// Maps of one block, one entry for each scale.
using ScaleMaps = std::vector<ops::GroupingMaps>;

/// Names    those of nn::Block; rose.* of its positions; grouping.*.
class GroupingBlock : public Block {
 public:
  /// `scales`: the grids that enter the stack; `before`: how the blocks before this one group. grouping.rose is that of
  /// the joint attention too.
  GroupingBlock(const BlockOptions& block, const GroupingOptions& grouping,
                std::vector<CellGrid> scales, std::vector<GroupingOptions> before);

  /// x_BLD -> [B, T, D].
  at::Tensor forward(const at::Tensor& x_BLD, const Context& context) const override;

  const std::vector<CellGrid>& scales_in() const { return in_; }
  const std::vector<CellGrid>& scales_out() const { return out_; }
  const Grouping& grouping() const { return *grouping_; }
  /// While set, forward makes whole maps and puts them there; null: none.
  void set_maps(ScaleMaps* maps) { maps_ = maps; }

 private:
  /// Of each scale that comes; undefined: all are.
  std::vector<at::Tensor> valid_cells(const Context& context) const;

  std::vector<CellGrid> entry_, in_, out_;
  std::vector<GroupingOptions> before_;
  std::shared_ptr<Rose> rose_;
  std::shared_ptr<Grouping> grouping_;
  ScaleMaps* maps_ = nullptr;
};

/// x [B, L, ...] cut into the tokens of each grid.
std::vector<at::Tensor> by_scale(const at::Tensor& x, const std::vector<CellGrid>& grids);

}  // namespace vitrail::nn
