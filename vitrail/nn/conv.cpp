#include "vitrail/nn/conv.h"

#include <numeric>
#include <vector>

#include <ATen/ops/convolution.h>
#include <ATen/ops/instance_norm.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::nn {
namespace {

std::vector<int64_t> weight_shape(int64_t axes, int64_t first, int64_t second, int64_t kernel) {
  std::vector<int64_t> shape{first, second};
  shape.insert(shape.end(), axes, kernel);
  return shape;
}

/// One number for every axis.
std::vector<int64_t> each(int64_t axes, int64_t value) { return std::vector<int64_t>(axes, value); }

void check_input(const at::Tensor& x, int64_t axes, int64_t channels) {
  VT_CHECK(x.dim() == axes + 2 && x.size(1) == channels,
           "[conv] input must be [B, {}, {} sides] but got [{}]", channels, axes,
           fmt::join(x.sizes(), ", "));
}

}  // namespace

Conv::Conv(int64_t axes, int64_t in, int64_t out, int64_t kernel, bool bias)
    : axes_(axes), padding_((kernel - 1) / 2) {
  VT_CHECK(kernel % 2 == 1, "[conv] the kernel's edge must be odd but got {}", kernel);
  weight_ = register_parameter("weight", weight_shape(axes, out, in, kernel));
  if (bias) bias_ = register_parameter("bias", {out});
}

at::Tensor Conv::forward(const at::Tensor& x, Tiles* tiles) const {
  check_input(x, axes_, weight_.size(1));
  if (tiles && padding_ > 0) return tiles->conv(x, weight_, bias_);
  return at::convolution(x, weight_, bias_, each(axes_, 1), each(axes_, padding_), each(axes_, 1),
                         /*transposed=*/false, each(axes_, 0), /*groups=*/1);
}

double Conv::multiply_adds(int64_t places) const {
  return static_cast<double>(weight_.numel()) * static_cast<double>(places);
}

UpConv::UpConv(int64_t axes, int64_t in, int64_t out, int64_t factor)
    : axes_(axes), factor_(factor) {
  weight_ = register_parameter("weight", weight_shape(axes, in, out, factor));
}

at::Tensor UpConv::forward(const at::Tensor& x) const {
  check_input(x, axes_, weight_.size(0));
  return at::convolution(x, weight_, {}, each(axes_, factor_), each(axes_, 0), each(axes_, 1),
                         /*transposed=*/true, each(axes_, 0), /*groups=*/1);
}

double UpConv::multiply_adds(int64_t places) const {
  return static_cast<double>(weight_.numel()) * static_cast<double>(places);
}

at::Tensor instance_norm(const at::Tensor& x, Tiles* tiles) {
  if (tiles) return tiles->instance_norm(x);
  const at::IntArrayRef sides = x.sizes().slice(2);
  const int64_t places =
      std::accumulate(sides.begin(), sides.end(), int64_t{1}, std::multiplies<int64_t>());
  VT_CHECK(places > 1, "[conv] an instance norm needs more than one place but got [{}]",
           fmt::join(x.sizes(), ", "));
  // ATen keeps the statistics of bf16 input in fp32 on GPUs and in bf16 on the CPU.
  const bool widen =
      x.is_cpu() && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf);
  const at::Tensor y = at::instance_norm(widen ? x.to(at::kFloat) : x, {}, {}, {}, {},
                                         /*use_input_stats=*/true, /*momentum=*/0.0,
                                         kInstanceNormEps, /*cudnn_enabled=*/true);
  return y.to(x.scalar_type());
}

}  // namespace vitrail::nn
