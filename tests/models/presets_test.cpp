/// Parameters of the named sizes, counted without allocating them.
#include <string>

#include <gtest/gtest.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"

namespace vitrail::models {
namespace {

std::shared_ptr<Model> shapes_of(const std::string& model_keys) {
  return make_model_shapes(
      config::parse_recipe("model: {" + model_keys + "}\n", "presets", {}).recipe.model);
}

/// Parameters of the decoder: what comes after the encoder's norm.
int64_t decoder_count(const Model& model) {
  int64_t count = 0;
  for (const nn::NamedTensor& parameter : model.named_parameters())
    if (parameter.name.starts_with("decoder_") || parameter.name == "mask_token")
      count += parameter.tensor.numel();
  return count;
}

/// The width of three-dimensional masked autoencoders: grouped keys, SwiGLU, RMSNorm, no biases, rotary positions.
TEST(Presets, OfVolumeAutoencodersHaveThePublishedCounts) {
  struct Size {
    const char* keys;
    int64_t encoder, decoder, total;
  };
  for (const Size& size : {
           Size{"kind: mae, preset: mae3d_2b, patch_size: 8", 2'040'105'984, 15'471'616,
                2'055'577'600},
           Size{"kind: mae, preset: mae3d_2b, patch_size: 16", 2'051'116'032, 17'306'624,
                2'068'422'656},
           Size{"kind: mae, preset: mae3d_8b, patch_size: 8", 6'981'685'248, 15'995'904,
                6'997'681'152},
       }) {
    const auto model =
        shapes_of(std::string(size.keys) + ", image_size: [512, 512, 512], in_channels: 1");
    EXPECT_EQ(model->parameter_count(), size.total) << size.keys;
    EXPECT_EQ(decoder_count(*model), size.decoder) << size.keys;
    EXPECT_EQ(model->parameter_count() - decoder_count(*model), size.encoder) << size.keys;
  }
}

/// Tsaris et al. 2024, arXiv:2404.11706: encoders without head at 224 x 224, in millions.
TEST(Presets, OfTheFrontierStudyHaveTheirCounts) {
  struct Size {
    const char* name;
    double millions;
  };
  for (const Size& size :
       {Size{"vit_base", 85.80}, Size{"vit_huge", 630.77}, Size{"vit_1b", 907.91},
        Size{"vit_3b", 3048.63}, Size{"vit_5b_printed", 3805.42}, Size{"vit_15b", 14638.75}}) {
    const auto model = shapes_of(std::string("preset: ") + size.name + ", num_classes: 0");
    EXPECT_NEAR(static_cast<double>(model->parameter_count()) / 1e6, size.millions, 0.006)
        << size.name << ": two decimals";
  }
}

}  // namespace
}  // namespace vitrail::models
