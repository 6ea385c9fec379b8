#include "vitrail/nn/grouping_block.h"

#include <utility>

#include <ATen/ops/cat.h>

namespace vitrail::nn {
namespace {

std::vector<CellGrid> grouped_all(std::vector<CellGrid> grids, const GroupingOptions& options) {
  for (CellGrid& grid : grids) grid = grouped(grid, options.kernel, options.stride);
  return grids;
}

}  // namespace

std::vector<at::Tensor> by_scale(const at::Tensor& x, const std::vector<CellGrid>& grids) {
  std::vector<int64_t> counts;
  for (const CellGrid& grid : grids) counts.push_back(grid.cells());
  return x.split_with_sizes(counts, 1);
}

GroupingBlock::GroupingBlock(const BlockOptions& block, const GroupingOptions& grouping,
                             std::vector<CellGrid> scales, std::vector<GroupingOptions> before)
    : Block(block), entry_(std::move(scales)), before_(std::move(before)) {
  in_ = entry_;
  for (const GroupingOptions& layer : before_) in_ = grouped_all(in_, layer);
  out_ = grouped_all(in_, grouping);
  if (Rose::turned_heads(grouping.rose) > 0)
    rose_ = register_module("rose", std::make_shared<Rose>(grouping.rose));
  grouping_ = register_module("grouping", std::make_shared<Grouping>(grouping));
}

std::vector<at::Tensor> GroupingBlock::valid_cells(const Context& context) const {
  if (!context.key_mask_BT.defined()) return std::vector<at::Tensor>(in_.size());
  std::vector<at::Tensor> valid = by_scale(context.key_mask_BT, entry_);
  std::vector<CellGrid> grids = entry_;
  for (const GroupingOptions& layer : before_) {
    for (size_t s = 0; s < valid.size(); ++s)
      valid[s] = valid_groups(valid[s], grids[s], layer.kernel, layer.stride);
    grids = grouped_all(grids, layer);
  }
  return valid;
}

at::Tensor GroupingBlock::forward(const at::Tensor& x_BLD, const Context& context) const {
  const std::vector<at::Tensor> cells = by_scale(x_BLD, in_), valid = valid_cells(context);
  std::vector<at::Tensor> groups;
  std::vector<ops::Rotary> tables;
  if (maps_) maps_->resize(in_.size());
  for (size_t s = 0; s < in_.size(); ++s) {
    groups.push_back(
        grouping_->forward(cells[s], in_[s], valid[s], context, maps_ ? &(*maps_)[s] : nullptr));
    if (rose_) tables.push_back(rose_->tables(out_[s], x_BLD));
  }
  Context joint = context;
  joint.key_mask_BT = at::Tensor();
  joint.rotary = joined(tables);
  return Block::forward(groups.size() == 1 ? groups[0] : at::cat(groups, 1), joint);
}

}  // namespace vitrail::nn
