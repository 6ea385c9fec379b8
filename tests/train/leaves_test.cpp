// Models with leaves from training to prediction: leaves of the loader's threads and of the step.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/data/test_data.h"
#include "tests/train/tiny_run.h"
#include "vitrail/comm/communicator.h"
#include "vitrail/io/image.h"
#include "vitrail/models/metrics.h"
#include "vitrail/train/loop.h"
#include "vitrail/train/predict.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using models::metric;

constexpr int64_t kSide = 32, kImages = 9;

bool is_inside(int64_t i, int64_t y, int64_t x) {
  return y >= 3 + i && y < 12 + i && x >= 4 + 2 * (i % 3) && x < 15 + i;
}

/// A rectangle and rows of stripes; every second picture is so faint that it has edges only when its values
/// are stretched.
std::vector<uint8_t> picture(int64_t i) {
  const bool faint = i % 2 == 1;
  std::vector<uint8_t> values;
  for (int64_t y = 0; y < kSide; ++y)
    for (int64_t x = 0; x < kSide; ++x) {
      const bool striped = y > 26 && x % 5 == i % 5;
      values.push_back(is_inside(i, y, x) ? (faint ? 62 : 215) : striped ? (faint ? 50 : 120) : 40);
    }
  return values;
}

std::vector<uint8_t> mask_of(int64_t i) {
  std::vector<uint8_t> mask;
  for (int64_t k = 0; k < kSide * kSide; ++k)
    mask.push_back(is_inside(i, k / kSide, k % kSide) ? 1 : 0);
  return mask;
}

/// images/C/N.png in class folders, flat/N.png, and masks/N.png of the rectangles.
void write_pictures(const Workplace& place) {
  if (fs::exists(place.file("flat"))) return;
  for (int64_t i = 0; i < kImages; ++i) {
    const std::vector<uint8_t> values = picture(i);
    data::test::write_grey(place.file(fmt::format("images/{}/{}.png", i % 3, i)), {kSide, kSide},
                           values);
    data::test::write_grey(place.file(fmt::format("flat/{}.png", i)), {kSide, kSide}, values);
    data::test::write_grey(place.file(fmt::format("masks/{}.png", i)), {kSide, kSide}, mask_of(i));
  }
}

/// `model` beside what is the same for all; mean and std are none of the defaults.
config::ResolvedRecipe recipe_of(const Workplace& place, const std::string& name,
                                 const std::string& model,
                                 const std::vector<std::string>& overrides = {}) {
  write_pictures(place);
  const bool of_pixels =
      model.find("unetr") != std::string::npos || model.find("sap") != std::string::npos;
  const std::string source =
      of_pixels ? fmt::format("reader: images, root: {}, labels: {}", place.file("flat"),
                              place.file("masks"))
                : fmt::format("reader: image_folder, root: {}", place.file("images"));
  const std::string yaml = fmt::format(R"yaml(
run: {{name: {0}, output: {1}, seed: 3, device: cpu, threads: 1}}
model: {{image_size: [32, 32], patch_size: 4, in_channels: 1, num_classes: 3, embed_dim: 32, depth: 4, num_heads: 2,
        decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 2, feature_size: 4, {2}}}
data: {{batch_size: 4, workers: 2, sources: [{{name: s, {3}, mean: [0.2], std: [0.4], augment: [flips]}}]}}
train: {{steps: 6, optimizer: {{kind: adamw, lr: 3.0e-3}}, schedule: {{kind: constant}}}}
checkpoint: {{every_steps: 0, keep: 0, async: false}}
eval: {{batch_size: 4, sources: [{{name: s, {3}, mean: [0.2], std: [0.4]}}]}}
logging: {{every_steps: 1, tensorboard: false, html: false}}
)yaml",
                                       name, place.file("runs"), model, source);
  return config::parse_recipe(yaml, "leaves.yaml", overrides);
}

RunResult train(const config::ResolvedRecipe& recipe) {
  TrainOptions options;
  options.print = false;
  options.resume = "never";
  return run_training(recipe, *comm::self_communicator(), options);
}

const std::map<std::string, std::string> kModels{
    {"sap", "kind: sap, adaptive: {fixed_length: 28, min_leaf: 2}"},
    {"unetr", "kind: unetr, adaptive: {fixed_length: 25, importance: variance}"},
    {"vit", "kind: vit, adaptive: {fixed_length: 22, resample: linear}"},
    {"mae", "kind: mae, adaptive: {fixed_length: 22, importance: gradient, loss_space: image}"}};

double relative(double a, double b) { return std::abs(a - b) / std::max(1e-6, std::abs(a)); }

TEST(LeafRuns, AreTheSameWithLeavesOfTheLoaderAndOfTheStep) {
  const Workplace place;
  for (const auto& [kind, model] : kModels) {
    std::vector<RunResult> runs;
    for (const char* where : {"loader", "step", "auto"})
      runs.push_back(train(recipe_of(place, kind, model, {std::string("data.patching=") + where})));
    double worst = 0;
    for (size_t run = 1; run < runs.size(); ++run) {
      ASSERT_EQ(runs[run].losses.size(), 6u);
      for (size_t i = 0; i < 6; ++i)
        worst = std::max(worst, relative(runs[0].losses[i], runs[run].losses[i]));
      const models::MetricList &a = runs[0].evaluation.at(0).metrics,
                               &b = runs[run].evaluation.at(0).metrics;
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, relative(a[i].second, b[i].second));
    }
    EXPECT_NE(runs[0].losses.front(), runs[0].losses.back());
    fmt::print("{}: worst relative difference {:.1e} (allowed 1e-6)\n", kind, worst);
    EXPECT_LE(worst, 1e-6) << kind;  // the leaves are the same numbers, the threads' order is not
  }
}

TEST(LeafRuns, EndWithPicturesInTheReport) {
  const Workplace place;
  std::map<std::string, std::string> all = kModels;
  all["mixed mae"] =
      "kind: mae, pos_embed: sincos, mixed_resolution: {num_tokens: 19, max_patch: 8}";
  all["mixed unetr"] =
      "kind: unetr, pos_embed: sincos, mixed_resolution: {num_tokens: 19, max_patch: 8}";
  for (const auto& [kind, model] : all) {
    const RunResult run = train(recipe_of(place, "pictures", model, {"logging.html=true"}));
    ASSERT_FALSE(run.evaluation.at(0).examples.empty()) << kind;
    for (const Example& example : run.evaluation.at(0).examples)
      EXPECT_EQ(example.leaves.defined(), kind != "vit") << kind;
    EXPECT_NE(read_bytes(run.report).find("data:image/png"), std::string::npos) << kind;
  }
}

/// The rows of a CSV file, with its heading.
std::vector<std::vector<std::string>> rows_of(const std::string& path) {
  std::vector<std::vector<std::string>> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::vector<std::string>& row = rows.emplace_back();
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, ',');) row.push_back(cell);
  }
  return rows;
}

TEST(LeafPrediction, OfClassesIsThatOfTheEvaluation) {
  const Workplace place;
  for (const std::string& model :
       {std::string("kind: vit, adaptive: {fixed_length: 22}"),
        std::string(
            "kind: vit, pos_embed: sincos, mixed_resolution: {num_tokens: 28, max_patch: 8}")}) {
    const auto recipe = recipe_of(place, "classes", model);
    const double loss = metric(train(recipe).evaluation.at(0).metrics, "loss");
    PredictOptions options;
    options.input = place.file("images");
    options.output = place.file("classes.csv");
    EXPECT_EQ(predict_files(recipe, *comm::self_communicator(), options), kImages);
    const auto rows = rows_of(options.output);
    ASSERT_EQ(rows.size(), static_cast<size_t>(kImages) + 1);
    double sum = 0;
    for (size_t i = 1; i < rows.size(); ++i) {
      const std::string truth = fs::path(rows[i][0]).parent_path().filename().string();
      for (size_t k = 4; k + 2 < rows[i].size(); k += 3)
        if (rows[i][k] == truth) sum -= std::log(std::stod(rows[i][k + 2]));
    }
    // Probabilities have six digits in the file.
    EXPECT_NEAR(sum / kImages, loss, 2e-5) << model;
  }
}

/// The share of pixels that masks of a folder have right.
double accuracy_of(const std::string& folder) {
  int64_t right = 0;
  for (int64_t i = 0; i < kImages; ++i) {
    const std::string bytes = read_bytes(fmt::format("{}/{:05}-{}.png", folder, i, i));
    const io::Image mask = io::decode_image(std::as_bytes(std::span(bytes)), "mask");
    const std::vector<uint8_t> truth = mask_of(i);
    for (size_t k = 0; k < truth.size(); ++k) right += mask.pixels.at(k) == truth[k];
  }
  return static_cast<double>(right) / static_cast<double>(kImages * kSide * kSide);
}

TEST(LeafPrediction, OfMasksIsThatOfTheEvaluation) {
  const Workplace place;
  for (const std::string& model :
       {kModels.at("sap"), kModels.at("unetr"),
        std::string(
            "kind: unetr, pos_embed: sincos, mixed_resolution: {num_tokens: 19, max_patch: 8}")}) {
    const auto recipe = recipe_of(place, "masks-run", model, {"train.steps=20"});
    const double accuracy = metric(train(recipe).evaluation.at(0).metrics, "pixel_accuracy");
    PredictOptions options;
    options.input = place.file("flat");
    options.output = place.file("predicted");
    EXPECT_EQ(predict_files(recipe, *comm::self_communicator(), options), kImages);
    EXPECT_NEAR(accuracy_of(options.output), accuracy, 1e-9) << model;  // whole pixels
    EXPECT_GT(accuracy, 0.5);
  }
}

TEST(LeafPrediction, OfLargeFilesGoesByWindowsOfTheModelsSize) {
  const Workplace place;
  const auto recipe = recipe_of(place, "windows", kModels.at("sap"),
                                {"data.sources[0].tile=[32,32]", "eval.sources[0].tile=[32,32]"});
  train(recipe);
  std::vector<uint8_t> values(50 * 71);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i / 71 > 20 && i % 71 > 30 ? 215 : 40;
  data::test::write_grey(place.file("large/0.png"), {50, 71}, values);
  PredictOptions options;
  options.input = place.file("large");
  options.output = place.file("large-masks");
  EXPECT_EQ(predict_files(recipe, *comm::self_communicator(), options), 1);
  const std::string bytes = read_bytes(options.output + "/00000-0.png");
  const io::Image mask = io::decode_image(std::as_bytes(std::span(bytes)), "mask");
  EXPECT_EQ(mask.height, 50);
  EXPECT_EQ(mask.width, 71);
}

TEST(LeafPrediction, OfHiddenLeavesIsPastedToTheImage) {
  const Workplace place;
  for (const std::string& model :
       {std::string("kind: mae, adaptive: {fixed_length: 28, min_leaf: 2}"),
        std::string(
            "kind: mae, pos_embed: sincos, mixed_resolution: {num_tokens: 28, max_patch: 8}")}) {
    const auto recipe = recipe_of(place, "hidden", model);
    train(recipe);
    PredictOptions options;
    options.input = place.file("flat");
    options.output = place.file("hidden-pictures");
    EXPECT_EQ(predict_files(recipe, *comm::self_communicator(), options), kImages);
    const auto pixels = [&](const char* part) {
      const std::string bytes = read_bytes(fmt::format("{}/00003-3-{}.png", options.output, part));
      return io::decode_image(std::as_bytes(std::span(bytes)), part).pixels;
    };
    const std::vector<uint8_t> original = pixels("original"), masked = pixels("masked"),
                               pasted = pixels("pasted"), said = pixels("reconstruction");
    EXPECT_EQ(original, picture(3));
    int64_t hidden = 0, guessed = 0;
    for (size_t i = 0; i < original.size(); ++i) {
      const bool is_grey = masked[i] == 128;  // no pixel of the picture is
      hidden += is_grey;
      guessed += pasted[i] != original[i];
      if (is_grey) {
        EXPECT_EQ(pasted[i], said[i]);
      }
    }
    EXPECT_GT(hidden, 100) << model;
    EXPECT_GT(guessed, 100) << model;
    EXPECT_LT(guessed, kSide * kSide - 50) << model;  // visible leaves stay as they are
  }
}

}  // namespace
}  // namespace vitrail::train
