#include "vitrail/parallel/tensor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/parallel/divided.h"
#include "vitrail/core/error.h"

namespace vitrail::testing {
namespace {

/// fp32 sums over heads and hidden units in another order; values of order 1. Worst seen 2e-7 for the loss (one unit in
/// the last place is 1.2e-7) and some 1e-6 for gradients, which pass more sums.
constexpr double kLoss = 1e-6, kGradient = 1e-5;

config::Model four_heads(const char* kind) {
  config::Model options = models::tiny(kind);
  options.embed_dim = 32, options.num_heads = 4;
  options.decoder_embed_dim = 16, options.decoder_num_heads = 4;
  return options;
}

struct Model {
  const char* name;
  config::Model (*options)();
};

const std::vector<Model>& all_models() {
  static const std::vector<Model> all{
      {"vit, everything drops",
       [] {
         config::Model options = four_heads("vit");
         options.drop_path_rate = 0.3, options.attn_drop_rate = 0.2, options.proj_drop_rate = 0.2;
         options.pos_drop_rate = 0.1, options.drop_rate = 0.1, options.layer_scale = 0.7;
         return options;
       }},
      {"vit, swiglu, shared keys, qk norm, rope, 13 tokens",
       [] {
         config::Model options = four_heads("vit");
         options.embed_dim = 64, options.num_heads = 8, options.num_kv_heads = 4;
         options.image_size = {16, 12}, options.qk_norm = true, options.rope.value = "axial";
         options.mlp.value = "swiglu", options.proj_drop_rate = 0.2, options.attn_drop_rate = 0.1;
         return options;
       }},
      {"vit, rmsnorm, no biases, attention pool",
       [] {
         config::Model options = four_heads("vit");
         options.norm.value = "rmsnorm", options.qkv_bias = options.proj_bias = false;
         options.pool.value = "attention", options.mlp.value = "swiglu";
         return options;
       }},
      {"vit over leaves, some of them padding",
       [] {
         config::Model options = four_heads("vit");
         models::make_adaptive(options);
         options.pool.value = "avg", options.attn_drop_rate = 0.2;
         return options;
       }},
      {"mae",
       [] {
         config::Model options = four_heads("mae");
         options.drop_path_rate = 0.3, options.proj_drop_rate = 0.2, options.qk_norm = true;
         options.num_kv_heads = 4, options.rope.value = "raster";
         return options;
       }},
      {"unetr",
       [] {
         config::Model options = models::segmenter("unetr", {16, 16}, 4);
         options.embed_dim = 32, options.num_heads = 4, options.proj_drop_rate = 0.1;
         return options;
       }},
      {"sap",
       [] {
         config::Model options = models::segmenter("sap", {24, 24}, 4);
         options.embed_dim = 32, options.num_heads = 4, options.attn_drop_rate = 0.1;
         options.adaptive.fixed_length = 9;
         return options;
       }},
      {"diffusion, time into the tokens",
       [] {
         config::Model options = four_heads("diffusion");
         options.loss.value = "mse", options.proj_drop_rate = 0.1;
         return options;
       }},
      {"diffusion, time into every block",
       [] {
         config::Model options = four_heads("diffusion");
         options.loss.value = "mse", options.time_conditioning.value = "block";
         options.drop_path_rate = 0.2, options.attn_drop_rate = 0.1;
         return options;
       }},
      {"vit of variables",
       [] {
         config::Model options = four_heads("vit");
         models::add_variables(options, 4);
         options.aggregation.queries = 3, options.qk_norm = true;
         return options;
       }},
      {"vit of variables in groups",
       [] {
         config::Model options = four_heads("vit");
         models::add_variables(options, 4);
         options.aggregation.groups = 2;
         options.aggregation.partial.value = "cross_attention";
         return options;
       }},
      {"mae of variables, linear",
       [] {
         config::Model options = four_heads("mae");
         models::add_variables(options, 4);
         options.aggregation.groups = 2, options.aggregation.kind.value = "linear";
         return options;
       }},
  };
  return all;
}

data::Batch batch_of(const config::Model& options) {
  if (options.kind != "unetr" && options.kind != "sap") return models::batch_for(options, 3);
  data::Batch batch = models::images(options, 3);
  if (options.kind == "sap") models::add_leaves(batch, options, 3);
  return batch;
}

DividedCase case_of(const Model& model) {
  DividedCase test;
  test.name = model.name;
  test.recipe.model = model.options();
  test.batch = batch_of(test.recipe.model);
  return test;
}

void expect_equal(int ranks, const DividedCase& test) {
  const Difference found = divided_difference(ranks, test);
  const std::string text = print(ranks, test, found);
  EXPECT_LE(found.loss, kLoss) << text;
  EXPECT_LE(found.output, kGradient) << text;
  EXPECT_LE(found.gradient, kGradient) << text;
}

TEST(TensorParallel, GivesEveryModelTheValuesOfOneRank) {
  for (const Model& model : all_models())
    for (const int ranks : {2, 4}) expect_equal(ranks, case_of(model));
}

TEST(TensorParallel, WithSplitNormsGivesTheSame) {
  for (const Model& model : all_models())
    for (const int ranks : {2, 4}) {
      DividedCase test = case_of(model);
      test.recipe.parallel.split_norms = true;
      test.name += ", split norms";
      expect_equal(ranks, test);
    }
}

TEST(TensorParallel, InPiecesGivesTheSame) {
  for (const bool split_norms : {false, true})
    for (const size_t which : {0, 1, 4}) {
      DividedCase test = case_of(all_models()[which]);
      test.recipe.parallel.tensor_chunks = 3, test.recipe.parallel.split_norms = split_norms;
      test.name += split_norms ? ", split norms, 3 pieces" : ", 3 pieces";
      expect_equal(2, test);
    }
}

TEST(TensorParallel, ComposesWithSequenceRanks) {
  for (const bool split_norms : {false, true})
    for (const size_t which : {0, 1, 4, 8}) {
      DividedCase test = case_of(all_models()[which]);
      test.sequence = 2;
      test.recipe.parallel.split_norms = split_norms;
      test.name += split_norms ? ", 2 x 2, split norms" : ", 2 x 2";
      expect_equal(4, test);
    }
}

TEST(TensorParallel, TakesOneSample) {
  for (const int64_t pieces : {1, 3}) {
    DividedCase test = case_of(all_models()[1]);
    test.batch = models::batch_for(test.recipe.model, 1);
    test.recipe.parallel.split_norms = true, test.recipe.parallel.tensor_chunks = pieces;
    test.name += ", one sample, split norms";
    expect_equal(4, test);
  }
}

/// Recomputed blocks issue their collectives again, in backward.
TEST(TensorParallel, ComposesWithRecompute) {
  for (const char* recompute : {"block", "every_k", "selective"})
    for (const bool split_norms : {false, true})
      for (const size_t which : {0, 1, 8}) {
        DividedCase test = case_of(all_models()[which]);
        test.recipe.train.recompute.value = recompute;
        test.recipe.parallel.split_norms = split_norms;
        test.name += fmt::format(", recompute {}{}", recompute, split_norms ? ", split norms" : "");
        expect_equal(2, test);
      }
}

TEST(TensorParallel, EvaluatesLikeOneRank) {
  for (const bool split_norms : {false, true})
    for (const Model& model : all_models()) {
      DividedCase test = case_of(model);
      test.training = false;
      test.recipe.parallel.tensor = 2;
      test.recipe.parallel.split_norms = split_norms;
      const at::Tensor expected = whole_pass(test).output;
      comm::run_thread_group(2, [&](comm::Communicator& world) {
        at::set_num_threads(1);
        const at::NoGradGuard no_grad;
        DividedModel divided(world, test);
        const at::Tensor output = divided.forward(test).output;
        EXPECT_LE((output - expected).abs().max().item<double>(),
                  kGradient * expected.abs().max().item<double>())
            << test.name;
      });
    }
}

/// A bias that every rank added would be there as often as there are ranks.
TEST(TensorParallel, AddsBiasesOnce) {
  for (const bool split_norms : {false, true}) {
    DividedCase test = case_of(all_models()[0]);
    test.name = split_norms ? "large biases, split norms" : "large biases";
    test.recipe.parallel.tensor = 4;
    test.recipe.parallel.split_norms = split_norms;
    test.prepare = [](models::Model& model) {
      models::randomise(model);
      const at::NoGradGuard no_grad;
      for (nn::NamedTensor& parameter : model.named_parameters())
        if (parameter.name.ends_with("proj.bias") || parameter.name.ends_with("fc2.bias"))
          parameter.tensor.fill_(3.0);
    };
    expect_equal(4, test);
  }
}

/// Plain descent: what all hold must not drift apart by a bit.
TEST(TensorParallel, KeepsWhatAllHoldEqualToTheBit) {
  for (const bool split_norms : {false, true}) {
    DividedCase test = case_of(all_models()[1]);
    test.recipe.parallel.tensor = 4;
    test.recipe.parallel.split_norms = split_norms;
    std::vector<std::map<std::string, at::Tensor>> held(4);
    comm::run_thread_group(4, [&](comm::Communicator& world) {
      at::set_num_threads(1);
      DividedModel divided(world, test);
      for (int step = 0; step < 5; ++step) {
        divided.forward(test).loss.backward();
        divided.finish_gradients();
        const at::NoGradGuard no_grad;
        for (nn::NamedTensor& parameter : divided.model->named_parameters()) {
          parameter.tensor.sub_(parameter.tensor.grad(), 1e-2);
          parameter.tensor.mutable_grad().reset();
        }
      }
      for (nn::NamedTensor& parameter : divided.model->named_parameters())
        if (divided.placements[parameter.name].split == parallel::Split::none)
          held[world.rank()][parameter.name] = parameter.tensor.detach().clone();
    });
    EXPECT_GT(held[0].size(), 10u);
    for (int rank = 1; rank < 4; ++rank)
      for (const auto& [name, values] : held[rank])
        EXPECT_TRUE(at::equal(values, held[0].at(name)))
            << name << " of rank " << rank << (split_norms ? " with split norms" : "");
  }
}

TEST(TensorParallel, DividesAMeasuredShareOfABlock) {
  const DividedCase test = case_of(all_models()[0]);
  const auto whole = models::make_model(test.recipe.model, 0);
  int64_t divided = 0, all = 0;
  const parallel::PlacementTable table = parallel::tensor_placement(test.recipe, 4, 1);
  for (const nn::NamedTensor& parameter : whole->named_parameters()) {
    if (!parameter.name.starts_with("blocks.")) continue;
    all += parameter.tensor.numel();
    divided += parallel::local_part(parameter.tensor,
                                    table(parameter.name, parameter.tensor.sizes().vec()))
                   .numel();
  }
  // D = 32, hidden 64, 2 blocks: 8192 matrix elements and 160 biases of a block are divided, 4 norms, 2 scales and 2
  // biases of 32 are not.
  EXPECT_EQ(all, 2 * (8192 + 160 + 8 * 32));
  EXPECT_EQ(divided, 2 * ((8192 + 160) / 4 + 8 * 32));
}

TEST(TensorParallel, SaysWhatItCannotDivide) {
  const auto message_for = [](const config::Model& options) {
    std::string message;
    try {
      comm::run_thread_group(4, [&](comm::Communicator& world) {
        DividedCase test;
        test.recipe.model = options;
        const DividedModel divided(world, test);
      });
    } catch (const core::ConfigError& error) {
      message = error.what();
    }
    return message;
  };
  config::Model options = four_heads("vit");
  options.num_heads = 2;
  EXPECT_THAT(message_for(options), ::testing::HasSubstr("attention heads of every block but got "
                                                         "4 and 2"));
  options = four_heads("vit");
  options.num_kv_heads = 2;
  EXPECT_THAT(message_for(options), ::testing::HasSubstr("key and value heads"));
  options = four_heads("vit");
  options.mlp_hidden_dim = 62;
  EXPECT_THAT(message_for(options), ::testing::HasSubstr("hidden units of every MLP but got 4 and "
                                                         "62"));
  options = four_heads("vit");
  models::add_variables(options, 4);
  options.aggregation.num_heads = 2;
  EXPECT_THAT(message_for(options), ::testing::HasSubstr("model.aggregation.num_heads"));
}

}  // namespace
}  // namespace vitrail::testing
