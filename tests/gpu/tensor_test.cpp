// Tensor-parallel ranks as threads of one process, one GPU each, through NCCL; and dropout of a part on one GPU.

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/parallel/divided.h"
#include "vitrail/ops/random.h"

namespace vitrail::testing {
namespace {

TEST(GpuDropout, OfAPartIsTheHosts) {
  ASSERT_GE(parallel::gpu_count(), 1) << "this test needs a GPU; it has the label gpu";
  const core::DrawKey key{5, core::Stream::dropout, 2, 9};
  const at::Tensor ids = at::tensor({int64_t{3}, int64_t{1} << 40}, at::kLong);
  struct Case {
    std::vector<int64_t> shape;
    ops::Window window;
  };
  const std::vector<Case> cases{{{7}, {{5}, {12}}},
                                {{33, 257}, {{20, 257}, {60, 1028}}},
                                {{4, 6}, {{7, 0}, {9, 6}}},
                                {{2, 5, 9}, {{2, 4, 3}, {4, 7, 10}}},
                                {{2, 64, 197}, {{2, 133, 0}, {4, 197, 197}}}};
  for (const Case& test : cases) {
    std::vector<int64_t> shape = test.shape;
    shape.insert(shape.begin(), 2);
    const at::Tensor host = ops::dropout(at::ones(shape), 0.4, key, ids, test.window);
    const at::Tensor device =
        ops::dropout(at::ones(shape, at::kCUDA), 0.4, key, ids.to(at::kCUDA), test.window);
    EXPECT_TRUE(at::equal(device.cpu(), host)) << host.sizes();
  }
}

config::Model vit() {
  config::Model options = models::tiny("vit");
  options.image_size = {16, 12};
  options.embed_dim = 128, options.num_heads = 8, options.num_kv_heads = 4, options.depth = 3;
  options.qk_norm = true, options.rope.value = "axial", options.mlp.value = "swiglu";
  options.drop_path_rate = 0.2, options.proj_drop_rate = 0.2, options.layer_scale = 0.7;
  return options;
}

config::Model of_variables() {
  config::Model options = models::tiny("vit");
  options.embed_dim = 128, options.num_heads = 8;
  models::add_variables(options, 8);
  options.aggregation.groups = 4, options.qk_norm = true;
  return options;
}

TEST(GpuDdp, TensorRanksGiveTheValuesOfOne) {
  ASSERT_GE(parallel::gpu_count(), 2) << "this test needs two GPUs; it has the label gpu2";
  const auto device_of = [](int rank) {
    return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const bool split_channels : {false, true})
      for (const bool split_norms : {false, true})
        for (const int64_t pieces : {1, 3}) {
          DividedCase test;
          test.recipe.model = split_channels ? of_variables() : vit();
          test.recipe.parallel.split_norms = split_norms;
          test.recipe.parallel.split_channels = split_channels;
          test.recipe.parallel.tensor_chunks = pieces;
          test.batch = models::batch_for(test.recipe.model, 4);
          test.dtype = dtype;
          test.name = fmt::format("{}{}{}, {} pieces", c10::toString(dtype),
                                  split_norms ? ", split norms" : "",
                                  split_channels ? ", split channels" : "", pieces);
          test.prepare = [](models::Model&) {};
          const Difference found = divided_difference(2, test, device_of);
          const std::string text = print(2, test, found);
          // fp32: sums in another order, on another device. bf16: 8 bits of every weight and activation.
          const bool exact = dtype == at::kFloat;
          EXPECT_LE(found.loss, exact ? 1e-5 : 2e-2) << text;
          EXPECT_LE(found.gradient, exact ? 1e-4 : 0.2) << text;
        }
}

}  // namespace
}  // namespace vitrail::testing
