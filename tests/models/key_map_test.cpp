#include "vitrail/models/key_map.h"

#include <algorithm>
#include <map>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;
using Tensors = std::vector<nn::NamedTensor>;

/// Distinct values everywhere, so that a swap of two tensors or rows shows.
class Maker {
 public:
  void add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t side : shape) count *= side;
    tensors.push_back({name, at::arange(next_, next_ + count, at::kFloat).reshape(shape)});
    next_ += count;
  }
  void linear(const std::string& name, int64_t out, int64_t in, bool bias = true) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  }
  void norm(const std::string& name, int64_t width, bool bias = true) {
    add(name + ".weight", {width});
    if (bias) add(name + ".bias", {width});
  }
  Tensors tensors;

 private:
  int64_t next_ = 1;
};

std::map<std::string, at::Tensor> by_name(const Tensors& tensors) {
  std::map<std::string, at::Tensor> map;
  for (const nn::NamedTensor& entry : tensors) map[entry.name] = entry.tensor;
  EXPECT_EQ(map.size(), tensors.size()) << "a name occurs twice";
  return map;
}

void expect_same(const Tensors& a, const Tensors& b) {
  const auto first = by_name(a), second = by_name(b);
  for (const auto& [name, tensor] : first) {
    ASSERT_TRUE(second.contains(name)) << name;
    EXPECT_TRUE(at::equal(tensor, second.at(name))) << name;
  }
  for (const auto& [name, tensor] : second) EXPECT_TRUE(first.contains(name)) << name;
}

void expect_way_and_back(const Tensors& theirs, Naming naming,
                         const std::vector<int64_t>& image_size = {}) {
  EXPECT_EQ(detect_naming(theirs), naming);
  const Renamed ours = import_names(theirs, naming, image_size);
  expect_same(theirs, export_names(ours.tensors, naming, image_size).tensors);
}

constexpr int64_t D = 8, H = 12;

void hf_ends(Maker& make, const std::string& wrapper) {
  make.add(wrapper + "embeddings.cls_token", {1, 1, D});
  make.add(wrapper + "embeddings.position_embeddings", {1, 5, D});
  make.add(wrapper + "embeddings.patch_embeddings.projection.weight", {D, 3, 2, 2});
  make.add(wrapper + "embeddings.patch_embeddings.projection.bias", {D});
  make.norm(wrapper + "layernorm", D);
}

void hf_attention(Maker& make, const std::string& layer) {
  for (const char* part : {"query", "key", "value"})
    make.linear(layer + "attention.attention." + part, D, D);
  make.linear(layer + "attention.output.dense", D, D);
}

void hf_vit_layer(Maker& make, const std::string& layer) {
  make.norm(layer + "layernorm_before", D);
  make.norm(layer + "layernorm_after", D);
  hf_attention(make, layer);
  make.linear(layer + "intermediate.dense", H, D);
  make.linear(layer + "output.dense", D, H);
}

Tensors hf_vit(bool with_head) {
  Maker make;
  const std::string wrapper = with_head ? "vit." : "";
  hf_ends(make, wrapper);
  for (const char* layer : {"encoder.layer.0.", "encoder.layer.11."})
    hf_vit_layer(make, wrapper + layer);
  if (with_head)
    make.linear("classifier", 3, D);
  else
    make.linear("pooler.dense", D, D);
  return make.tensors;
}

Tensors dinov2(const std::string& wrapper, bool registers, bool gated, bool head) {
  Maker make;
  hf_ends(make, wrapper);
  make.add(wrapper + "embeddings.mask_token", {1, D});
  if (registers) make.add(wrapper + "embeddings.register_tokens", {1, 4, D});
  for (const char* number : {"0", "10"}) {
    const std::string layer = wrapper + "encoder.layer." + number + ".";
    make.norm(layer + "norm1", D);
    make.norm(layer + "norm2", D);
    hf_attention(make, layer);
    make.add(layer + "layer_scale1.lambda1", {D});
    make.add(layer + "layer_scale2.lambda1", {D});
    make.linear(layer + (gated ? "mlp.weights_in" : "mlp.fc1"), gated ? 2 * H : H, D);
    make.linear(layer + (gated ? "mlp.weights_out" : "mlp.fc2"), D, H);
  }
  if (head) make.linear("classifier", 3, 2 * D);
  return make.tensors;
}

TEST(KeyMap, HfViTComesBackUnchanged) {
  expect_way_and_back(hf_vit(true), Naming::hf);
  expect_way_and_back(hf_vit(false), Naming::hf);
}

TEST(KeyMap, Dinov2ComesBackUnchanged) {
  for (const bool gated : {false, true})
    for (const bool head : {false, true}) {
      expect_way_and_back(dinov2(head ? "dinov2." : "", false, gated, head), Naming::hf);
      expect_way_and_back(dinov2(head ? "dinov2_with_registers." : "", true, gated, head),
                          Naming::hf);
    }
}

TEST(KeyMap, QueryKeyAndValueAreTheRowsOfQkvInThatOrder) {
  const Tensors theirs = hf_vit(true);
  const auto ours = by_name(import_names(theirs, Naming::hf).tensors);
  const auto source = by_name(theirs);
  const std::string attention = "vit.encoder.layer.11.attention.attention.";
  for (const char* end : {"weight", "bias"})
    EXPECT_TRUE(at::equal(
        ours.at(std::string("blocks.11.attn.qkv.") + end),
        at::cat({source.at(attention + "query." + end), source.at(attention + "key." + end),
                 source.at(attention + "value." + end)})));
}

TEST(KeyMap, TheFirstHalfOfWeightsInIsTheGate) {
  const Tensors theirs = dinov2("", false, true, false);
  const auto ours = by_name(import_names(theirs, Naming::hf).tensors);
  const at::Tensor both = by_name(theirs).at("encoder.layer.10.mlp.weights_in.weight");
  EXPECT_TRUE(at::equal(ours.at("blocks.10.mlp.fc1_g.weight"), both.slice(0, 0, H)));
  EXPECT_TRUE(at::equal(ours.at("blocks.10.mlp.fc1_x.weight"), both.slice(0, H)));
}

TEST(KeyMap, RegistersWithoutPositionsGetZeroRowsAfterTheClassToken) {
  const auto ours = by_name(import_names(dinov2("", true, false, false), Naming::hf).tensors);
  const at::Tensor& table = ours.at("pos_embed");
  ASSERT_EQ(table.size(1), 1 + 4 + 4);
  EXPECT_EQ(table.slice(1, 1, 5).abs().max().item<float>(), 0.0f);
  EXPECT_NE(table.slice(1, 0, 1).abs().max().item<float>(), 0.0f);
}

TEST(KeyMap, PositionsOfRegistersMoveIntoTheRegistersOnTheWayOut) {
  Maker make;
  make.add("cls_token", {1, 1, D});
  make.add("reg_token", {1, 2, D});
  make.add("pos_embed", {1, 1 + 2 + 4, D});
  make.add("blocks.0.ls1.gamma", {D});
  const auto ours = by_name(make.tensors);
  const auto theirs = by_name(export_names(make.tensors, Naming::hf).tensors);
  EXPECT_TRUE(at::equal(theirs.at("embeddings.register_tokens"),
                        ours.at("reg_token") + ours.at("pos_embed").slice(1, 1, 3)));
  EXPECT_EQ(theirs.at("embeddings.position_embeddings").size(1), 5);
}

TEST(KeyMap, Dinov3IsRefusedWithTheReason) {
  Maker make;
  make.add("embeddings.patch_embeddings.weight", {D, 3, 2, 2});
  make.add("layer.0.attention.q_proj.weight", {D, D});
  ASSERT_EQ(detect_naming(make.tensors), Naming::hf);
  try {
    import_names(make.tensors, Naming::hf);
    FAIL() << "nothing was thrown";
  } catch (const core::CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rotary"));
  }
}

void monai_encoder(Maker& make, const std::string& wrapper, bool linear_patch) {
  const std::string patch = wrapper + "patch_embedding.";
  make.add(patch + "position_embeddings", {1, 8, D});
  if (linear_patch)
    make.linear(patch + "patch_embeddings.1", D, 8);
  else
    make.add(patch + "patch_embeddings.weight", {D, 1, 2, 2, 2}),
        make.add(patch + "patch_embeddings.bias", {D});
  for (const char* number : {"0", "1"}) {
    const std::string block = wrapper + "blocks." + number + ".";
    make.linear(block + "mlp.linear1", H, D);
    make.linear(block + "mlp.linear2", D, H);
    make.linear(block + "attn.out_proj", D, D);
    make.linear(block + "attn.qkv", 3 * D, D, false);
    for (const char* norm : {"norm1", "norm2", "norm_cross_attn"}) make.norm(block + norm, D);
  }
  make.norm(wrapper + "norm", D);
}

TEST(KeyMap, MonaiVitAndUnetrComeBackUnchanged) {
  for (const bool linear_patch : {false, true}) {
    Maker vit;
    vit.add("cls_token", {1, 1, D});
    monai_encoder(vit, "", linear_patch);
    vit.linear("classification_head", 3, D);
    expect_way_and_back(vit.tensors, Naming::monai);
    Maker unetr;
    monai_encoder(unetr, "vit.", linear_patch);
    unetr.add("encoder1.layer.conv1.conv.weight", {4, 1, 3, 3, 3});
    unetr.add("encoder2.blocks.0.0.conv.weight", {4, 4, 2, 2, 2});
    unetr.add("decoder5.transp_conv.conv.weight", {D, 4, 2, 2, 2});
    unetr.linear("out.conv.conv", 2, 4);
    expect_way_and_back(unetr.tensors, Naming::monai);
    EXPECT_TRUE(by_name(import_names(unetr.tensors, Naming::monai).tensors)
                    .contains("encoder2.blocks.0.0.conv.weight"));
  }
}

TEST(KeyMap, OurOwnWeightsLeaveForMonaiWithTheNormItsReaderWants) {
  Maker make;
  make.norm("blocks.0.norm1", D);
  const auto theirs = by_name(export_names(make.tensors, Naming::monai).tensors);
  EXPECT_EQ(theirs.at("blocks.0.norm_cross_attn.weight").sum().item<float>(), D);
  EXPECT_EQ(theirs.at("blocks.0.norm_cross_attn.bias").sum().item<float>(), 0.0f);
}

Tensors torchtitan_mae(int64_t kv) {
  Maker make;
  make.add("encoder.patch_embedding.proj.weight", {D, 1, 2, 2, 2});
  const auto layer = [&](const std::string& name, int64_t kv_rows) {
    make.norm(name + "attention_norm", D, false);
    make.norm(name + "ffn_norm", D, false);
    make.linear(name + "attention.wq", D, D, false);
    make.linear(name + "attention.wk", kv_rows, D, false);
    make.linear(name + "attention.wv", kv_rows, D, false);
    make.linear(name + "attention.wo", D, D, false);
    make.linear(name + "feed_forward.w1", H, D, false);
    make.linear(name + "feed_forward.w2", D, H, false);
    make.linear(name + "feed_forward.w3", H, D, false);
  };
  layer("encoder.layers.0.", kv), layer("encoder.layers.15.", kv), layer("decoder.layers.0.", D);
  make.norm("encoder.norm", D, false);
  make.linear("decoder.embedding", D, D, false);
  make.add("decoder.mask_token", {1, 1, D});
  make.norm("decoder.norm", D, false);
  make.linear("decoder.output", 8, D, false);
  return make.tensors;
}

TEST(KeyMap, TorchtitanMaeComesBackUnchangedWithGroupedQueries) {
  for (const int64_t kv : {D, D / 4}) {
    const Tensors theirs = torchtitan_mae(kv);
    expect_way_and_back(theirs, Naming::torchtitan_mae);
    const auto ours = by_name(import_names(theirs, Naming::torchtitan_mae).tensors);
    EXPECT_EQ(ours.at("blocks.15.attn.qkv.weight").size(0), D + 2 * kv);
    EXPECT_TRUE(at::equal(ours.at("blocks.0.mlp.fc1_g.weight"),
                          by_name(theirs).at("encoder.layers.0.feed_forward.w1.weight")));
  }
}

TEST(KeyMap, WrappersOfTrainingAreTakenOffNames) {
  Tensors wrapped = torchtitan_mae(D);
  for (nn::NamedTensor& entry : wrapped) {
    const size_t at = entry.name.find("layers.0.");
    if (at != std::string::npos) entry.name.insert(at + 9, "_checkpoint_wrapped_module.");
    entry.name = "_orig_mod." + entry.name;
  }
  expect_same(import_names(wrapped, Naming::torchtitan_mae).tensors,
              import_names(torchtitan_mae(D), Naming::torchtitan_mae).tensors);
}

void ucf_trunk(Maker& make) {
  make.linear("blocks.0.attn.qkv", 3 * D, D);
  make.linear("blocks.0.mlp.fc1", H, D);
  make.linear("blocks.0.mlp.fc2", D, H);
  make.norm("norm", D);
}

void copy(Maker& make, const std::string& from, const std::string& to) {
  for (const char* end : {"weight", "bias"})
    make.tensors.push_back({to + end, by_name(make.tensors).at(from + end).clone()});
}

TEST(KeyMap, UcfVitComesBackUnchangedInEveryFormOfTokens) {
  Maker mixed;
  mixed.add("pos_embed", {1, 4, D});
  mixed.add("patch_embed.proj.weight", {D, 3, 2, 2}), mixed.add("patch_embed.proj.bias", {D});
  ucf_trunk(mixed);
  copy(mixed, "patch_embed.proj.", "token_embeds.proj.");
  mixed.add("mask_token", {1, 1, D});
  mixed.linear("decoder_pred", 12, D);
  expect_way_and_back(mixed.tensors, Naming::ucf_vit);

  Maker variables;
  variables.add("pos_embed", {1, 4, D});
  variables.add("var_embed", {1, 2, D}), variables.add("var_query", {1, 1, D});
  variables.linear("var_agg.q", D, D, false), variables.linear("var_agg.kv", 2 * D, D, false);
  variables.linear("var_agg.proj", D, D);
  variables.add("patch_embed.proj.weight", {D, 1, 2, 2}),
      variables.add("patch_embed.proj.bias", {D});
  ucf_trunk(variables);
  for (const char* name : {"token_embeds.0.proj.", "token_embeds.1.proj."})
    copy(variables, "patch_embed.proj.", name);
  expect_way_and_back(variables.tensors, Naming::ucf_vit);

  Maker adaptive;
  for (const char* variable : {"token_embeds.0.", "token_embeds.1."}) {
    adaptive.norm(std::string(variable) + "0", 4);
    adaptive.linear(std::string(variable) + "1", D, 4);
    adaptive.norm(std::string(variable) + "2", D);
  }
  adaptive.add("pos_embed", {1, 7, D});
  adaptive.linear("adaptive_pos_dep_emb.0", D, 3);
  adaptive.linear("decoder_adaptive_pos_dep_emb.0", D, 3);
  ucf_trunk(adaptive);
  expect_way_and_back(adaptive.tensors, Naming::ucf_vit, {256, 256});

  Maker leaves;
  leaves.norm("token_embeds.0", 12), leaves.linear("token_embeds.1", D, 12),
      leaves.norm("token_embeds.2", D);
  leaves.linear("timeEmbeddingMap.linear1", D, D), leaves.linear("timeEmbeddingMap.linear2", D, D);
  ucf_trunk(leaves);
  expect_way_and_back(leaves.tensors, Naming::ucf_vit);
}

TEST(KeyMap, UcfVitsSegmenterOfLeavesComesBackUnchanged) {
  Maker make;
  make.norm("token_embeds.0", 12), make.linear("token_embeds.1", D, 12),
      make.norm("token_embeds.2", D);
  ucf_trunk(make);
  make.add("neck.0.weight", {D, 256, 2, 2});
  make.add("mask_header.0.weight", {3, 256, 1, 1}), make.add("mask_header.0.bias", {3});
  expect_way_and_back(make.tensors, Naming::ucf_vit);
  EXPECT_TRUE(by_name(import_names(make.tensors, Naming::ucf_vit).tensors).contains("neck.weight"));
}

TEST(KeyMap, PixelCoordinatesOfUcfVitGiveTheSamePositions) {
  Maker make;
  make.linear("adaptive_pos_dep_emb.0", D, 4);
  const at::Tensor theirs = make.tensors[0].tensor;
  const auto ours = by_name(import_names(make.tensors, Naming::ucf_vit, {64, 64, 64}).tensors);
  // A leaf of edge 8 whose centre lies at (16, 4, 32) along axes 0, 1, 2: UCF-VIT's vector names the last axis first.
  const at::Tensor pixels = at::zeros({4, 1}), parts = at::zeros({4, 1});
  const float in_pixels[] = {8, 32, 4, 16}, in_parts[] = {8 / 64.f, 16 / 64.f, 4 / 64.f, 32 / 64.f};
  for (int64_t i = 0; i < 4; ++i) pixels[i][0] = in_pixels[i], parts[i][0] = in_parts[i];
  EXPECT_TRUE(at::equal(theirs.mm(pixels), ours.at("leaf_position.proj.weight").mm(parts)));
}

TEST(KeyMap, PixelCoordinatesNeedTheImageSize) {
  Maker make;
  make.linear("adaptive_pos_dep_emb.0", D, 3);
  EXPECT_THROW(import_names(make.tensors, Naming::ucf_vit), core::CheckpointError);
}

TEST(KeyMap, UcfVitHasOnePatchEmbeddingForAllVariables) {
  Maker make;
  make.add("var_embed", {1, 2, D});
  for (const char* name : {"token_embeds.0.proj.", "token_embeds.1.proj."})
    make.add(std::string(name) + "weight", {D, 1, 2, 2});
  try {
    export_names(make.tensors, Naming::ucf_vit);
    FAIL() << "nothing was thrown";
  } catch (const core::CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("token_embeds.1.proj.weight"));
  }
}

TEST(KeyMap, TimmsPackedGatesAreTakenApart) {
  Maker make;
  make.linear("blocks.0.mlp.fc1", 2 * H, D);
  make.linear("blocks.0.mlp.fc2", D, H);
  make.linear("blocks.1.mlp.fc1", H, D);
  make.linear("blocks.1.mlp.fc2", D, H);
  const auto ours = by_name(import_names(make.tensors, Naming::timm).tensors);
  EXPECT_TRUE(at::equal(ours.at("blocks.0.mlp.fc1_x.bias"), make.tensors[1].tensor.slice(0, H)));
  EXPECT_TRUE(ours.contains("blocks.1.mlp.fc1.weight"));
}

TEST(KeyMap, ATensorWithoutANameThereIsRefusedByName) {
  Maker make;
  make.add("var_query", {1, 1, D});
  for (const Naming naming : {Naming::hf, Naming::monai, Naming::torchtitan_mae}) try {
      export_names(make.tensors, naming);
      FAIL() << name(naming);
    } catch (const core::CheckpointError& error) {
      EXPECT_THAT(error.what(), HasSubstr("'var_query' has no name in the scheme"));
    }
}

TEST(KeyMap, WhatIsNotWrittenIsNamed) {
  Maker make;
  make.add("mask_token", {1, 1, D});
  make.norm("norm", D);
  const Renamed theirs = export_names(make.tensors, Naming::timm);
  EXPECT_EQ(theirs.tensors.size(), 2u);
  ASSERT_EQ(theirs.notes.size(), 1u);
  EXPECT_EQ(theirs.notes[0].first, "mask_token");
}

TEST(KeyMap, EveryWordIsANaming) {
  for (const std::string& word : naming_words()) EXPECT_EQ(name(parse_naming(word)), word);
  EXPECT_THROW(parse_naming("keras"), core::ConfigError);
}

}  // namespace
}  // namespace vitrail::models
