#pragma once
/// One line of the tables of recipes that must be refused.

#include <string>
#include <vector>

namespace vitrail::config {

struct BadRecipe {
  std::string yaml;
  std::vector<std::string> overrides;
  std::string message;  // all of it
};

/// A small good recipe for cases that are only overrides.
constexpr const char* kBase =
    "run: {name: digits}\n"
    "model:\n"
    "  image_size: [8, 8]\n"
    "  patch_size: 2\n"
    "  embed_dim: 64\n"
    "  num_heads: 4\n"
    "data:\n"
    "  batch_size: 64\n"
    "  sources: [{reader: digits, root: d.csv.gz}]\n"
    "train: {epochs: 2}\n";

/// A model alone that is good as every kind, 2-D or 3-D.
constexpr const char* kModel =
    "model: {image_size: [8, 8], patch_size: 2, in_channels: 1, embed_dim: 48, depth: 4, "
    "num_heads: 4, decoder_embed_dim: 48, decoder_num_heads: 4}\n";

/// A small good recipe of a model that is trained on masks.
constexpr const char* kSegmentation =
    "model:\n"
    "  kind: unetr\n"
    "  image_size: [16, 16]\n"
    "  patch_size: 4\n"
    "  embed_dim: 48\n"
    "  num_heads: 4\n"
    "data:\n"
    "  sources: [{reader: images, root: x, labels: y}]\n"
    "train: {epochs: 2}\n";

}  // namespace vitrail::config
