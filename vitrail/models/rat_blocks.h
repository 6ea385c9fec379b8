#pragma once
/// What a recipe says about the blocks of the resolution-aware transformer.

#include <memory>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/nn/grouping_block.h"

namespace vitrail::models {

/// The options themselves. throws ConfigError when they contradict each other, before anything is allocated; a block
/// that would be left without a group is named.
const config::Model& checked_rat(const config::Model& options);

/// One block after another, of `grids` at the entry.
std::vector<std::shared_ptr<nn::Block>> rat_blocks(const config::Model& options,
                                                   const std::vector<nn::CellGrid>& grids);

}  // namespace vitrail::models
