#pragma once
/// A small run for tests: ten easy classes of 8x8 pictures, a ViT of three blocks.

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/philox.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

/// A folder that goes away with the object.
class Workplace {
 public:
  Workplace() {
    static std::atomic<int> count{0};
    path_ =
        std::filesystem::temp_directory_path() / fmt::format("vitrail-{}-{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  ~Workplace() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// `samples` digits whose classes differ by which pixels are bright.
inline void write_digits(const std::string& path, int samples) {
  const core::DrawKey key{7, core::Stream::test, 0, 0};
  std::string text;
  for (int i = 0; i < samples; ++i) {
    const int label = i % 10;
    for (uint32_t pixel = 0; pixel < 64; ++pixel) {
      const bool bright = core::uniform(key, static_cast<uint64_t>(label), pixel) < 0.5f;
      const auto noise =
          static_cast<int>(core::draw(key, 1000 + static_cast<uint64_t>(i), pixel) % 5) - 2;
      text += fmt::format("{}.0,", std::clamp((bright ? 11 : 2) + noise, 0, 16));
    }
    text += fmt::format("{}.0\n", label);
  }
  gzFile out = gzopen(path.c_str(), "wb");
  gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
  gzclose(out);
}

/// The recipe, with overrides such as "train.steps=10". The data file is written when it is not
/// there yet.
inline config::ResolvedRecipe tiny_recipe(const Workplace& place, const std::string& name,
                                          const std::vector<std::string>& overrides = {}) {
  const std::string data = place.file("digits.csv.gz");
  if (!std::filesystem::exists(data)) write_digits(data, 203);
  const std::string yaml = fmt::format(R"yaml(
run: {{name: {0}, output: {1}, seed: 3, device: cpu, threads: 1}}
model: {{kind: vit, image_size: [8, 8], patch_size: 2, in_channels: 1, num_classes: 10, embed_dim: 32, depth: 3,
        num_heads: 2, mlp_ratio: 2, drop_path_rate: 0.2}}
data:
  batch_size: 16
  workers: 1
  sources: [{{name: digits, reader: digits, root: {2}, split: [0.0, 0.8]}}]
train:
  steps: 20
  optimizer: {{kind: adamw, lr: 3.0e-3}}
  schedule: {{kind: constant, warmup_steps: 3}}
  clip_grad_norm: 1.0
checkpoint: {{every_steps: 0, keep: 0, async: false}}
eval: {{sources: [{{name: digits, reader: digits, root: {2}, split: [0.8, 1.0]}}]}}
logging: {{every_steps: 1, tensorboard: false, html: false}}
)yaml",
                                       name, place.file("runs"), data);
  return config::parse_recipe(yaml, "tiny.yaml", overrides);
}

/// Every step's line of a run's metrics.jsonl.
inline std::vector<nlohmann::json> read_steps(const std::string& folder) {
  std::vector<nlohmann::json> steps;
  std::ifstream in(folder + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    nlohmann::json record = nlohmann::json::parse(line);
    if (!record.contains("split")) steps.push_back(std::move(record));
  }
  return steps;
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace vitrail::train
