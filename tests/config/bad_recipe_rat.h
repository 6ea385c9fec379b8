#pragma once
/// Resolution-aware transformers whose options do not go together.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

constexpr const char* kRat =
    "model:\n"
    "  kind: rat\n"
    "  image_size: [32, 32]\n"
    "  embed_dim: 48\n"
    "  num_heads: 4\n"
    "  depth: 2\n"
    "  rat: {kernel: 3}\n"
    "data:\n"
    "  sources: [{reader: random}]\n"
    "train: {epochs: 2}\n";

inline const std::vector<BadRecipe>& bad_rats() {
  static const std::vector<BadRecipe> table{
      {kRat,
       {"model.patch_size=4"},
       "[config] model.patch_size must be 1 for rat, which has a token for every pixel, but got 4  "
       "(command line: "
       "model.patch_size=4, r.yaml:2:9)"},
      {kRat,
       {"model.rat.kernel=4", "model.rat.stride=[2]", "model.depth=6"},
       "[config] model.rat.kernel 4 leaves block 3 without a group: scale 0.25 comes to it as a "
       "grid of 1x1; set an odd "
       "kernel, a smaller one, or model.depth 3  (command line: model.rat.kernel=4, command line: "
       "model.depth=6)"},
      {kRat,
       {"model.rat.scales=[0.5, 1.0]"},
       "[config] model.rat.scales must go from fine to coarse but 1 follows 0.5  (command line: "
       "model.rat.scales=[0.5, "
       "1.0])"},
      {kRat,
       {"model.rat.scales=[1.0, 0.01]"},
       "[config] model.rat.scales 0.01 leaves nothing of model.image_size [32, 32]  (command line: "
       "model.rat.scales=[1.0, 0.01], r.yaml:3:15)"},
      {kRat,
       {"model.rat.attention=[deformable]"},
       "[config] model.rat.attention[0] must be dense or sparse but got deformable, which the "
       "first program names without "
       "having it  (command line: model.rat.attention=[deformable])"},
      {kRat,
       {"model.rat.stride=[2, 1, 1]"},
       "[config] model.rat.stride must hold 1 entry or model.depth = 2 but holds 3  (command line: "
       "model.rat.stride=[2, 1, "
       "1], r.yaml:6:10)"},
      {kRat,
       {"model.rat.proj_kernel=4"},
       "[config] model.rat.proj_kernel must be odd but got 4  (command line: "
       "model.rat.proj_kernel=4)"},
      {kRat,
       {"model.rat.rotary_ratio=1.5"},
       "[config] model.rat.rotary_ratio must lie in [0, 1] but got 1.5  (command line: "
       "model.rat.rotary_ratio=1.5)"},
      {kRat,
       {"model.num_classes=3"},
       "[config] model.num_classes must be 2 for rat with the loss bce_dice, background included, "
       "but got 3  (command "
       "line: model.num_classes=3)"},
      {kRat,
       {"model.loss=mse"},
       "[config] model.loss must be one of bce_dice, bce, dice_ce, dice, generalized_dice, "
       "cross_entropy, focal, "
       "dice_focal for rat with head segmentation but got mse  (command line: model.loss=mse)"},
      {kRat,
       {"model.rat.head=classification", "model.num_classes=10"},
       "[config] model.loss must be one of cross_entropy, focal for rat with head classification "
       "but got bce_dice  "
       "(command line: model.rat.head=classification)"},
      {kRat,
       {"model.rat.head=detection", "model.loss=boxes", "model.num_classes=3",
        "model.detection.queries=grid", "model.rat.stride=[4]", "data.sources[0].reader=random"},
       "[config] model.detection.num_queries must be at most the 4 tokens that the blocks leave of "
       "the finest scale, a "
       "grid of 2x2, but got 100  (command line: model.rat.stride=[4])"},
      {kRat,
       {"model.rope=axial"},
       "[config] model.rope must be none for rat; model.rat.position says where tokens lie  "
       "(command line: "
       "model.rope=axial, r.yaml:2:9)"},
      {kRat,
       {"train.engine=fused"},
       "[config] train.engine must be auto or autograd for rat, whose blocks the fused engine does "
       "not know, but is fused "
       " (command line: train.engine=fused, r.yaml:2:9)"},
      {kRat,
       {"parallel.tensor=2"},
       "[config] parallel.tensor must be 1 for rat but got 2; its blocks are divided by "
       "parallel.strategy zero1 to zero3  "
       "(command line: parallel.tensor=2, r.yaml:2:9)"},
  };
  return table;
}

}  // namespace vitrail::config
