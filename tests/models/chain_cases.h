#pragma once
// One small recipe of every model that is run in pieces, with draws on, and batches for them.

#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "tests/models/detection_cases.h"
#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "vitrail/models/chain.h"

namespace vitrail::models {

struct ChainCase {
  std::string name;
  config::Model options;
};

inline config::Model with_draws(config::Model options) {
  options.drop_path_rate = 0.3, options.proj_drop_rate = options.attn_drop_rate = 0.1;
  options.pos_drop_rate = 0.1;
  if (options.kind == "vit") options.drop_rate = 0.2, options.patch_drop_rate = 0.2;
  return options;
}

/// Every model with eight blocks in all: vit, mae (two trunks, one), unetr (with skips and without), sap, diffusion
/// (conditioned at the input, in every block, without a second trunk), vit_detection (learned and grid queries),
/// leaves, rotary positions.
inline std::vector<ChainCase> chain_cases() {
  std::vector<ChainCase> cases;
  const auto add = [&](const char* name, config::Model options) {
    cases.push_back({name, with_draws(std::move(options))});
  };
  config::Model vit = tiny("vit");
  vit.depth = 8, vit.pool.value = "avg", vit.rope.value = "axial";
  add("vit", vit);
  config::Model leaves = tiny("vit");
  make_adaptive(leaves);
  leaves.depth = 8, leaves.pool.value = "attention";
  add("vit_leaves", leaves);
  config::Model mae = tiny("mae");
  mae.depth = 5, mae.decoder_depth = 3, mae.rope.value = "raster";
  add("mae", mae);
  mae.depth = 8, mae.decoder.value = "linear";
  add("mae_linear", mae);
  config::Model unetr = segmenter("unetr", {32, 32}, 16);
  unetr.depth = 8;
  add("unetr", unetr);
  config::Model linear = segmenter("unetr", {16, 16}, 8);
  linear.depth = 8, linear.skips = false, linear.decoder.value = "linear";
  add("unetr_linear", linear);
  config::Model sap = segmenter("sap", {16, 16}, 4);
  sap.depth = 8;
  add("sap", sap);
  config::Model diffusion = segmenter("diffusion", {8, 8}, 4);
  diffusion.pos_embed.value = "sincos", diffusion.loss.value = "mse", diffusion.depth = 5;
  diffusion.decoder.value = "transformer";
  diffusion.decoder_depth = 3, diffusion.decoder_num_heads = 2, diffusion.num_timesteps = 50;
  diffusion.time_drop_rate = 0.1, diffusion.class_drop_rate = 0.3;
  add("diffusion", diffusion);
  diffusion.time_conditioning.value = "block";
  add("diffusion_blocks", diffusion);
  config::Model detection = tiny_detection();
  detection.depth = 8;
  add("vit_detection", detection);
  detection = tiny_detection("grid", "focal");
  detection.depth = 8;
  add("vit_detection_grid", detection);
  diffusion.decoder.value = "linear", diffusion.depth = 8;
  add("diffusion_blocks_linear", diffusion);
  return cases;
}

inline data::Batch chain_batch(const config::Model& options, int64_t size) {
  if (options.kind == "unetr" || options.kind == "sap") return images(options, size);
  if (options.kind == "vit_detection") return detection_batch(options, size);
  data::Batch batch = batch_for(options, size);
  batch.label = batch.label.remainder(options.num_classes);
  return batch;
}

/// All pieces of a chain, each block on its own.
inline std::vector<ChainPiece> single_pieces(Chain& chain) {
  std::vector<ChainPiece> pieces;
  const std::vector<nn::Stack*> trunks = chain.trunks();
  for (int t = 0; t < static_cast<int>(trunks.size()); ++t) {
    pieces.push_back({.end = t, .trunk = -1, .range = {}});
    for (int i = 0; i < trunks[t]->depth(); ++i)
      pieces.push_back({.end = -1, .trunk = t, .range = {i, i + 1}});
  }
  pieces.push_back({.end = static_cast<int>(trunks.size()), .trunk = -1, .range = {}});
  return pieces;
}

}  // namespace vitrail::models
