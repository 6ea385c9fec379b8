#pragma once
/// train.decatt where it cannot work.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_decatt() {
  static const std::vector<BadRecipe> table{
      {kBase,
       {"train.decatt.weight=-1"},
       "[config] train.decatt.weight must be at least 0 but got -1  (command line: "
       "train.decatt.weight=-1)"},
      {kBase,
       {"train.decatt={weight: 1, blocks: [0, 12]}"},
       "[config] train.decatt.blocks[1] must be a block, 0 to model.depth - 1, but got 12 with a "
       "depth of 12  (command line: train.decatt={weight: 1, blocks: [0, 12]})"},
      {kBase,
       {"train.decatt={weight: 1, blocks: [3, 3]}"},
       "[config] train.decatt.blocks[1] names block 3 again; name each block once  (command line: "
       "train.decatt={weight: 1, blocks: [3, 3]})"},
      {kBase,
       {"train.decatt.weight=1", "model.num_heads=1"},
       "[config] train.decatt compares heads, so model.num_heads must be at least 2 but got 1  "
       "(command line: train.decatt.weight=1, command line: model.num_heads=1)"},
      {kBase,
       {"train.decatt.weight=1", "parallel.tensor=2"},
       "[config] train.decatt.form heads needs parallel.tensor 1, since tensor ranks hold "
       "different heads, but it is 2  (command line: train.decatt.weight=1, command line: "
       "parallel.tensor=2)"},
      {kBase,
       {"train.decatt.weight=1", "parallel.pipeline=2"},
       "[config] train.decatt needs parallel.pipeline 1, since the loss is added where the whole "
       "model is, but it is 2  (command line: train.decatt.weight=1, command line: "
       "parallel.pipeline=2)"},
  };
  return table;
}

}  // namespace vitrail::config
