#include "vitrail/ops/embed.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace vitrail::ops {
namespace {

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(Embed, PatchesTimesAWeightAreAConvolution) {
  const at::Tensor image = at::randn({2, 3, 8, 12}, at::kDouble),
                   weight = at::randn({5, 3, 4, 4}, at::kDouble);
  const at::Tensor found = at::matmul(embed_patches(image, 4, at::kDouble), weight.flatten(1).t());
  const at::Tensor expected = at::conv2d(image, weight, {}, 4).flatten(2).transpose(1, 2);
  EXPECT_LE(worst(found, expected), 1e-12);  // sums of 48 products in fp64
  const at::Tensor volume = at::randn({1, 2, 4, 8, 4}, at::kDouble),
                   deep = at::randn({3, 2, 4, 4, 4}, at::kDouble);
  EXPECT_LE(worst(at::matmul(embed_patches(volume, 4, at::kDouble), deep.flatten(1).t()),
                  at::conv3d(volume, deep, {}, 4).flatten(2).transpose(1, 2)),
            1e-12);
}

TEST(Embed, TokensJoinBehindTheirPrefix) {
  const at::Tensor x = at::randn({3, 5, 8}), prefix = at::randn({1, 2, 8}),
                   positions = at::randn({1, 5, 8});
  const at::Tensor all = join_tokens(prefix, x, positions);
  EXPECT_EQ(all.sizes(), at::IntArrayRef({3, 7, 8}));
  EXPECT_EQ(worst(all.slice(1, 2), x + positions), 0.0);
  EXPECT_EQ(worst(all.slice(1, 0, 2), prefix.expand({3, 2, 8})), 0.0);
  EXPECT_EQ(worst(join_tokens({}, x, positions), x + positions), 0.0);
  EXPECT_EQ(worst(join_tokens({}, x, {}), x), 0.0);
}

}  // namespace
}  // namespace vitrail::ops
