#pragma once
/// A detector of coloured shapes: its pictures and its recipe.

#include "tests/train/shapes.h"
#include "tests/train/tiny_run.h"

namespace vitrail::train {

/// 64 x 64 pixels, a ViT of three blocks, queries of the grid. Pictures are written when they are not there yet.
inline config::ResolvedRecipe shapes_recipe(const Workplace& place, const std::string& name,
                                            int pictures, int held_out,
                                            const std::vector<std::string>& overrides = {}) {
  for (const auto& [part, count, seed] : {std::tuple{"train", pictures, 1}, {"test", held_out, 2}})
    if (!std::filesystem::exists(place.file(part)))
      write_shapes(place.file(part), count, 64, static_cast<uint64_t>(seed));
  const std::string yaml =
      fmt::format(R"yaml(
run: {{name: {0}, output: {1}, seed: 3, device: cpu, threads: 1}}
model:
  kind: vit_detection
  image_size: [64, 64]
  patch_size: 8
  num_classes: 3
  embed_dim: 96
  rope: axial
  depth: 3
  num_heads: 4
  mlp_ratio: 2
  detection: {{queries: grid, num_queries: 12, decoder_depth: 1, decoder_num_heads: 4, class_loss: focal,
              class_weight: 2, auxiliary_matches: 4, min_score: 0.3}}
data:
  batch_size: 16
  workers: 1
  sources: [{{name: shapes, reader: coco, root: {2}/images, labels: {2}/instances.json, augment: [flip]}}]
train:
  steps: 1000
  optimizer: {{kind: adamw, lr: 2.0e-3, weight_decay: 0.02}}
  schedule: {{kind: cosine, warmup_steps: 50, min_lr: 1.0e-5}}
  clip_grad_norm: 5.0
checkpoint: {{every_steps: 0, keep: 0, async: false}}
eval:
  every_epochs: 100
  batch_size: 16
  sources: [{{name: shapes-test, reader: coco, root: {3}/images, labels: {3}/instances.json}}]
logging: {{every_steps: 50, tensorboard: false, html: true}}
)yaml",
                  name, place.file("runs"), place.file("train"), place.file("test"));
  return config::parse_recipe(yaml, "shapes.yaml", overrides);
}

}  // namespace vitrail::train
