#include "vitrail/models/weights.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;

config::Model tiny(const char* kind) {
  config::Model options;
  options.kind.value = kind;
  options.image_size = {8, 8};
  options.patch_size = 4, options.num_classes = 5, options.embed_dim = 16, options.depth = 2,
  options.num_heads = 2;
  options.decoder_embed_dim = 8, options.decoder_depth = 1, options.decoder_num_heads = 2,
  options.mask_ratio = 0.5;
  if (options.kind == "mae") options.pos_embed.value = "sincos";
  return options;
}

class Weights : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("vitrail-weights-" +
               std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string file(const char* name) const { return (folder_ / name).string(); }

  /// The message of the CheckpointError that loading `path` into a model of `options` must throw.
  static std::string error_of(const config::Model& options, const std::string& path) {
    try {
      load_weights(*make_model(options, 1), path);
    } catch (const core::CheckpointError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

 private:
  std::filesystem::path folder_;
};

void expect_equal(Model& a, Model& b) {
  const auto first = model_tensors(a), second = model_tensors(b);
  ASSERT_EQ(first.size(), second.size());
  for (size_t t = 0; t < first.size(); ++t)
    EXPECT_TRUE(at::equal(first[t].tensor, second[t].tensor)) << first[t].name;
}

/// Positions of the class token travel inside the token where the other program has no row for them.
void expect_close(Model& a, Model& b) {
  const auto first = model_tensors(a), second = model_tensors(b);
  const auto sum = [](const std::vector<nn::NamedTensor>& tensors) {
    at::Tensor token, table;
    for (const nn::NamedTensor& entry : tensors) {
      if (entry.name == "cls_token") token = entry.tensor;
      if (entry.name == "pos_embed") table = entry.tensor;
    }
    return token + table.slice(1, 0, 1);
  };
  EXPECT_TRUE(at::equal(sum(first), sum(second)));
  for (size_t t = 0; t < first.size(); ++t)
    if (first[t].name != "cls_token" && first[t].name != "pos_embed") {
      EXPECT_TRUE(at::equal(first[t].tensor, second[t].tensor)) << first[t].name;
    }
}

TEST_F(Weights, EveryNamingComesBackUnchanged) {
  const std::pair<const char*, std::vector<Naming>> cases[] = {
      {"vit", {Naming::vitrail, Naming::timm, Naming::hf, Naming::monai, Naming::ucf_vit}},
      {"mae", {Naming::vitrail, Naming::mae, Naming::hf, Naming::ucf_vit}}};
  for (const auto& [kind, namings] : cases)
    for (const Naming naming : namings) {
      const auto model = make_model(tiny(kind), 1), other = make_model(tiny(kind), 2);
      save_weights(*model, file("w.safetensors"), naming);
      const LoadReport report = load_weights(*other, file("w.safetensors"));
      EXPECT_TRUE(report.complete()) << report.describe();
      naming == Naming::monai ? expect_close(*model, *other) : expect_equal(*model, *other);
    }
}

TEST_F(Weights, TheLlamaFormOfBlocksComesBackUnchangedFromTorchtitanNames) {
  config::Model options = tiny("mae");
  options.image_size = {8, 8, 8}, options.in_channels = 1, options.num_kv_heads = 1;
  options.class_token = false, options.pos_embed.value = "none", options.rope.value = "raster";
  options.norm.value = "rmsnorm", options.mlp.value = "swiglu";
  options.qkv_bias = options.proj_bias = options.patch_bias = false;
  const auto model = make_model(options, 1), other = make_model(options, 2);
  save_weights(*model, file("w.safetensors"), Naming::torchtitan_mae);
  const auto names = read_tensors(file("w.safetensors"));
  EXPECT_TRUE(std::ranges::any_of(names, [](const nn::NamedTensor& entry) {
    return entry.name == "encoder.layers.1.attention.wk.weight" && entry.tensor.size(0) == 8;
  }));
  const LoadReport report = load_weights(*other, file("w.safetensors"));
  EXPECT_TRUE(report.complete()) << report.describe();
  expect_equal(*model, *other);
}

TEST_F(Weights, HfSplitsQkvInThree) {
  const auto model = make_model(tiny("vit"), 1);
  const auto exported = export_names(model_tensors(*model), Naming::hf).tensors;
  int found = 0;
  for (const nn::NamedTensor& entry : exported)
    if (entry.name == "vit.encoder.layer.1.attention.attention.key.weight") {
      ++found;
      EXPECT_EQ(entry.tensor.sizes().vec(), (std::vector<int64_t>{16, 16}));
    }
  EXPECT_EQ(found, 1);
  EXPECT_EQ(detect_naming(exported), Naming::hf);
}

TEST_F(Weights, AnotherShapeIsOneLineWithTensorAndBothShapes) {
  save_weights(*make_model(tiny("vit"), 1), file("w.safetensors"));
  config::Model options = tiny("vit");
  options.num_classes = 7;
  const std::string message = error_of(options, file("w.safetensors"));
  EXPECT_THAT(message, AllOf(HasSubstr("w.safetensors"),
                             HasSubstr("'head.weight' must be [7, 16] but is [5, 16]")));
  EXPECT_THAT(message, testing::Not(HasSubstr("\n")));
}

TEST_F(Weights, MissingAndUnexpectedTensorsAreNamed) {
  save_weights(*make_model(tiny("vit"), 1), file("w.safetensors"));
  config::Model options = tiny("vit");
  options.qk_norm = true, options.qkv_bias = false;
  const std::string message = error_of(options, file("w.safetensors"));
  EXPECT_THAT(message, AllOf(HasSubstr("8 missing"), HasSubstr("blocks.[0-1].attn.q_norm.weight"),
                             HasSubstr("blocks.[0-1].attn.k_norm.bias"),
                             HasSubstr("2 unexpected: blocks.[0-1].attn.qkv.bias"),
                             HasSubstr("model.weights.strict=false")));
}

TEST_F(Weights, AStrictLoadThatFailsChangesNothing) {
  save_weights(*make_model(tiny("vit"), 1), file("w.safetensors"));
  config::Model options = tiny("vit");
  options.num_classes = 7;
  const auto model = make_model(options, 2), untouched = make_model(options, 2);
  EXPECT_THROW(load_weights(*model, file("w.safetensors")), core::CheckpointError);
  expect_equal(*model, *untouched);
}

TEST_F(Weights, WithoutStrictWhatMatchesIsLoadedAndTheRestReported) {
  save_weights(*make_model(tiny("mae"), 1), file("w.safetensors"));
  config::Model options = tiny("vit");
  const auto model = make_model(options, 2);
  const LoadReport report = load_weights(*model, file("w.safetensors"), "auto", false);
  EXPECT_THAT(report.missing, testing::UnorderedElementsAre("head.weight", "head.bias"));
  EXPECT_THAT(report.unexpected, testing::Contains("mask_token"));
  EXPECT_GT(report.loaded, 20);
  EXPECT_THAT(report.describe(), HasSubstr("2 missing: head.bias, head.weight"));
}

TEST_F(Weights, EveryNameThatDidNotMatchHasALine) {
  save_weights(*make_model(tiny("mae"), 1), file("w.safetensors"));
  const LoadReport report =
      load_weights(*make_model(tiny("vit"), 2), file("w.safetensors"), "auto", false);
  const std::vector<std::string> lines = report.lines();
  EXPECT_EQ(lines.size(), 1 + report.missing.size() + report.unexpected.size());
  for (const char* line : {"  missing head.weight", "  unexpected mask_token",
                           "  unexpected decoder_blocks.0.mlp.fc1.bias"})
    EXPECT_THAT(lines, testing::Contains(line));
}

TEST_F(Weights, AStrictMaeInAnotherModelIsToldHowToStartFromIt) {
  save_weights(*make_model(tiny("mae"), 1), file("w.safetensors"));
  EXPECT_THAT(error_of(tiny("vit"), file("w.safetensors")),
              HasSubstr("strict=false loads what matches, as for a masked autoencoder"));
}

TEST_F(Weights, WhatAnotherProgramNeverReadsIsNoHindrance) {
  auto exported = export_names(model_tensors(*make_model(tiny("vit"), 1)), Naming::hf).tensors;
  exported.push_back({"pooler.dense.bias", at::zeros({16})});
  write_tensors(file("w.safetensors"), exported);
  const LoadReport report = load_weights(*make_model(tiny("vit"), 2), file("w.safetensors"));
  EXPECT_TRUE(report.complete());
  EXPECT_THAT(report.unused, testing::ElementsAre("pooler.dense.bias"));
}

TEST(Compact, NumbersOfOnePlaceAreTakenTogether) {
  EXPECT_THAT(compact({"norm.bias", "blocks.0.a", "blocks.1.a", "blocks.2.a", "blocks.7.a",
                       "blocks.3.b", "x.4"}),
              testing::ElementsAre("norm.bias", "blocks.[0-2, 7].a", "blocks.3.b", "x.4"));
}

TEST_F(Weights, ABrokenFileIsACheckpointErrorThatNamesIt) {
  std::ofstream(file("broken.safetensors")) << "not a weights file";
  EXPECT_THAT(error_of(tiny("vit"), file("broken.safetensors")), HasSubstr("broken.safetensors"));
  EXPECT_THAT(error_of(tiny("vit"), file("absent.safetensors")), HasSubstr("absent.safetensors"));
}

TEST_F(Weights, DiffFindsTheTensorThatDiffers) {
  const auto model = make_model(tiny("vit"), 1);
  save_weights(*model, file("a.safetensors"));
  {
    const at::NoGradGuard no_grad;
    for (nn::NamedTensor& parameter : model->named_parameters())
      if (parameter.name == "norm.weight") parameter.tensor.add_(0.5);
  }
  save_weights(*model, file("b.safetensors"));
  const std::string text = diff_weights(file("a.safetensors"), file("b.safetensors"));
  EXPECT_THAT(text, AllOf(HasSubstr("norm.weight: largest absolute difference 5.000e-01"),
                          HasSubstr("1 differ")));
  EXPECT_THAT(diff_weights(file("a.safetensors"), file("a.safetensors")), HasSubstr(" 0 differ"));
}

TEST_F(Weights, ImportRefusesAQkvThatIsNotWhole) {
  auto exported = export_names(model_tensors(*make_model(tiny("vit"), 1)), Naming::hf).tensors;
  std::erase_if(exported, [](const nn::NamedTensor& entry) {
    return entry.name.find("0.attention.attention.key.weight") != std::string::npos;
  });
  EXPECT_THROW(import_names(exported, Naming::hf), core::CheckpointError);
}

}  // namespace
}  // namespace vitrail::models
