#include "vitrail/models/decatt.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/matmul.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

/// Without a list the first three, which is where the published program takes it.
constexpr int kFirstBlocks = 3;

/// Statistics of half types are taken in fp32.
at::Tensor widened(const at::Tensor& x_BTD, const at::Tensor& real_BT) {
  const bool is_wide = x_BTD.scalar_type() == at::kDouble || x_BTD.scalar_type() == at::kFloat;
  const at::Tensor wide_BTD = is_wide ? x_BTD : x_BTD.to(at::kFloat);
  return real_BT.defined() ? wide_BTD.masked_fill(real_BT.logical_not().unsqueeze(-1), 0.0)
                           : wide_BTD;
}

/// a_BNX: rows -> their products, divided by the sum of the squares of all: [B, N, N] with trace 1.
at::Tensor correlation(const at::Tensor& a_BNX) {
  const at::Tensor products_BNN = at::matmul(a_BNX, a_BNX.transpose(1, 2));
  const at::Tensor trace_B = products_BNN.diagonal(0, 1, 2).sum(-1);
  return products_BNN / trace_B.clamp_min(1e-30).view({-1, 1, 1});
}

}  // namespace

at::Tensor head_correlation(const at::Tensor& attended_BTD, int64_t num_heads,
                            const at::Tensor& real_BT) {
  const int64_t B = attended_BTD.size(0), T = attended_BTD.size(1);
  const at::Tensor a_BNX = widened(attended_BTD, real_BT)
                               .view({B, T, num_heads, -1})
                               .transpose(1, 2)
                               .reshape({B, num_heads, -1});
  const at::Tensor squares_BNN = correlation(a_BNX).square();
  return (squares_BNN.sum() - squares_BNN.diagonal(0, 1, 2).sum()) / static_cast<double>(B);
}

at::Tensor token_part_correlation(const at::Tensor& x_BTD, int64_t num_heads,
                                  const at::Tensor& real_BT) {
  const int64_t B = x_BTD.size(0), taken = std::min(num_heads, B);
  const at::Tensor c_BNN =
      correlation(widened(x_BTD, real_BT).contiguous().view({B, num_heads, -1}));
  const at::Tensor rows_BN = c_BNN.square().sum(-1);
  const at::Tensor first = rows_BN.narrow(0, 0, taken).narrow(1, 0, taken).diagonal();
  return (rows_BN.sum() - first.sum()) / static_cast<double>(B);
}

Decatt::Decatt(const config::Decatt& options, int depth, int64_t num_heads)
    : weight_(options.weight), of_heads_(options.form == "heads"), num_heads_(num_heads) {
  std::vector<int> blocks(options.blocks.begin(), options.blocks.end());
  if (blocks.empty())
    for (int i = 0; i < std::min(depth, kFirstBlocks); ++i) blocks.push_back(i);
  for (const int block : blocks)
    VT_REQUIRE(ConfigError, block >= 0 && block < depth,
               "[config] train.decatt.blocks must name blocks in [0, {}) but names {}", depth,
               block);
  if (!of_heads_) blocks = {*std::ranges::max_element(blocks)};
  for (const int block : blocks)
    taps_.emplace_back(block, of_heads_ ? nn::TapOf::attention : nn::TapOf::output);
}

at::Tensor Decatt::loss(const std::vector<at::Tensor>& tapped, const at::Tensor& real_BT) const {
  if (!of_heads_) return token_part_correlation(tapped.front(), num_heads_, real_BT);
  at::Tensor sum;
  for (const at::Tensor& attended_BTD : tapped) {
    const at::Tensor one = head_correlation(attended_BTD, num_heads_, real_BT);
    sum = sum.defined() ? sum + one : one;
  }
  return sum / static_cast<double>(tapped.size());
}

}  // namespace vitrail::models
