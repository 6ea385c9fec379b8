// Whatever the text, reading ends in a recipe or in a ConfigError whose lines all have the agreed
// form.

#include <random>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

constexpr const char* kSeed = R"(run: {name: digits, seed: 3}
model: {kind: mae, preset: vit_tiny, image_size: &s [8, 8], patch_size: 2, mask_ratio: 0.5, layer_scale: 1e-5}
data:
  batch_size: 64
  sources:
    - name: "a\tb"
      reader: digits
      root: |
        data/digits
      split: {start: 0, end: 0.5}
      augment: [flip, crop:4]   # comment
      resize: *s
train: {epochs: 2, optimizer: {kind: sgd, betas: [0.9, .95]}, ema_decay: null}
eval: {sources: [{reader: random, root: '12'}]}
)";

constexpr const char* kSegmentationSeed = R"(model:
  {kind: unetr, image_size: [8, 16, 16], patch_size: 4, in_channels: 1, num_classes: 3, embed_dim: 96,
   num_heads: 4, num_kv_heads: 2, rope: axial, skips: true, feature_size: 8, loss: dice_focal,
   class_weights: [0.2, 1, 1], focal_gamma: 2}
data:
  sources:
    - {reader: nifti, root: a, label_maps: [b, c], region: [0, 0.5, 0, 1, 0, 1], overlap: [],
       random_crop: {size: [8, 16, 16], per_epoch: 4}, normalize: {percentile: [1, 99]},
       augment: [flips, rot90]}
train: {epochs: 2, optimizer: {layer_decay: 0.75}}
eval:
  sources:
    - {reader: image_stack, root: a, labels: b, label_values: [0, 128, 255], tile: [8, 16, 16],
       overlap: [0, 0.5, 0.5], normalize: {mean: [0.5], std: [0.2]}}
)";

constexpr const char* kVariablesSeed = R"(model:
  kind: diffusion
  image_size: [8, 8]
  patch_size: 2
  variables: [u, v, w, t]
  aggregation: {queries: 2, num_heads: 4, groups: 2, partial: cross_attention}
  embed_dim: 48
  num_heads: 4
  time_conditioning: block
  decoder: linear
  adaptive: null
data: {sources: [{reader: random, variables: [u, t], random_crop: null, slices: null, tile: null}]}
train: {steps: 3}
)";

/// Pieces that steer mutations towards what YAML gives a meaning.
const std::vector<std::string>& pieces() {
  static const std::vector<std::string> list{"[",         "]",
                                             "{",         "}",
                                             ":",         ": ",
                                             ",",         "- ",
                                             "\n",        "\n  ",
                                             "&a ",       "*a",
                                             "*s",        "!!",
                                             "!x ",       "|\n",
                                             ">\n",       "\"",
                                             "'",         "#",
                                             " # ",       "%",
                                             "---\n",     "...",
                                             "<<: ",      "? ",
                                             "~",         "null",
                                             "true",      ".nan",
                                             "-1",        "1e999",
                                             "0x1",       "9999999999999999999999",
                                             "\t",        "\r",
                                             "\\",        "\xff",
                                             "\xc3\xa9",  "model",
                                             "kind",      "unetr",
                                             "depth",     "sources",
                                             "split",     "@",
                                             "`",         "0",
                                             "65536",     "1e-320",
                                             "\x01",      "fixed_length",
                                             "variables", "per_epoch"};
  return list;
}

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}
  size_t below(size_t n) { return random_() % n; }
  std::string mutate(std::string text) {
    for (size_t changes = 1 + below(4); changes > 0 && !text.empty(); --changes) {
      const size_t at = below(text.size()), length = std::min(below(12), text.size() - at);
      switch (below(5)) {
        case 0:
          text.insert(at, pieces()[below(pieces().size())]);
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.replace(at, length, pieces()[below(pieces().size())]);
          break;
        case 3:
          text[at] = static_cast<char>(below(256));
          break;
        case 4:
          text.insert(below(text.size()), text.substr(at, length));
          break;
      }
    }
    return text;
  }

 private:
  std::mt19937 random_;
};

/// 1 when read, 0 when refused well; anything else fails the test.
int read(const std::string& yaml, const std::vector<std::string>& overrides) {
  try {
    parse_recipe(yaml, "recipe.yaml", overrides);
    return 1;
  } catch (const core::ConfigError& error) {
    std::istringstream lines(error.what());
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count)
      EXPECT_EQ(line.rfind("[config] ", 0), 0u) << "line '" << line << "' of the message for\n"
                                                << yaml;
    EXPECT_GT(count, 0);
    return 0;
  }
}

/// Counts of one seed's mutations.
void fuzz(const char* seed, uint32_t mutations, int rounds) {
  Mutator mutator(mutations);
  ASSERT_EQ(read(seed, {}), 1) << "else every mutation starts from a broken recipe";
  int accepted = 0;
  for (int i = 0; i < rounds; ++i) accepted += read(mutator.mutate(seed), {});
  fmt::print("{} mutated recipes: {} read, {} refused\n", rounds, accepted, rounds - accepted);
  EXPECT_GT(accepted, rounds / 100);  // else the mutations are too wild to get past the parser
  EXPECT_GT(rounds - accepted, rounds / 10);
}

TEST(Fuzz, MutatedRecipesAreReadOrRefusedInWholeLines) { fuzz(kSeed, 1, 10'000); }

TEST(Fuzz, MutatedRecipesOfSegmentationAreReadOrRefusedInWholeLines) {
  fuzz(kSegmentationSeed, 4, 4'000);
}

TEST(Fuzz, MutatedRecipesOfVariablesAreReadOrRefusedInWholeLines) {
  fuzz(kVariablesSeed, 5, 4'000);
}

TEST(Fuzz, MutatedOverridesAreReadOrRefusedInWholeLines) {
  constexpr int kRounds = 5'000;
  const std::vector<std::string> seeds{"data.sources[0].root=/data/x",
                                       "model.image_size=[32, 32]",
                                       "train.optimizer={kind: sgd, lr: 0.1}",
                                       "eval.sources[1].reader=random",
                                       "train.optimizer.betas[1]=0.95",
                                       "model.aggregation.queries=2",
                                       "model.adaptive.fixed_length=9",
                                       "model.variables=[a, b, c]",
                                       "model.image_size=[8, 8, 8]",
                                       "data.sources[0].random_crop.per_epoch=8",
                                       "data.sources[0].region=[0, 1, 0.5, 1]",
                                       "data.sources[0].normalize={percentile: [1, 99]}",
                                       "model.preset=mae3d_2b"};
  Mutator mutator(2);
  int accepted = 0;
  for (int i = 0; i < kRounds; ++i)
    accepted += read(kSeed, {mutator.mutate(seeds[mutator.below(seeds.size())]), "model.depth=2"});
  fmt::print("{} mutated overrides: {} read, {} refused\n", kRounds, accepted, kRounds - accepted);
  EXPECT_GT(accepted, 0);
  EXPECT_GT(kRounds - accepted, 0);
}

TEST(Fuzz, RandomBytesAreReadOrRefusedInWholeLines) {
  Mutator mutator(3);
  for (int i = 0; i < 5'000; ++i) {
    std::string text(mutator.below(200), ' ');
    for (char& c : text) c = static_cast<char>(mutator.below(256));
    read(text, {});
    std::string yaml;
    for (size_t n = mutator.below(60); n > 0; --n) yaml += pieces()[mutator.below(pieces().size())];
    read(yaml, {yaml});
  }
}

}  // namespace
}  // namespace vitrail::config
