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

}  // namespace vitrail::config
