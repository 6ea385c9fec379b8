#include "vitrail/nn/conv_blocks.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/leaky_relu.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::nn {
namespace {

constexpr double kSlope = 0.01;

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

}  // namespace

ResidualBlock::ResidualBlock(int64_t axes, int64_t in, int64_t out) {
  conv1_ = register_module("conv1.conv", std::make_shared<Conv>(axes, in, out, 3));
  conv2_ = register_module("conv2.conv", std::make_shared<Conv>(axes, out, out, 3));
  if (in != out) conv3_ = register_module("conv3.conv", std::make_shared<Conv>(axes, in, out, 1));
}

// In place where backward needs only the result: these maps are the largest of the model.
at::Tensor ResidualBlock::forward(const at::Tensor& x, Tiles* tiles) const {
  at::Tensor y = instance_norm(conv1_->forward(x, tiles), tiles);
  y = at::leaky_relu_(y, kSlope);
  y = instance_norm(conv2_->forward(y, tiles), tiles);
  y.add_(conv3_ ? instance_norm(conv3_->forward(x, tiles), tiles) : x);
  return at::leaky_relu_(y, kSlope);
}

double ResidualBlock::multiply_adds(int64_t places) const {
  return conv1_->multiply_adds(places) + conv2_->multiply_adds(places) +
         (conv3_ ? conv3_->multiply_adds(places) : 0.0);
}

RaiseBlock::RaiseBlock(int64_t axes, int64_t in, int64_t out, int more) : axes_(axes) {
  first_ = register_module("transp_conv_init.conv", std::make_shared<UpConv>(axes, in, out));
  for (int i = 0; i < more; ++i) {
    ups_.push_back(register_module(fmt::format("blocks.{}.0.conv", i),
                                   std::make_shared<UpConv>(axes, out, out)));
    blocks_.push_back(register_module(fmt::format("blocks.{}.1", i),
                                      std::make_shared<ResidualBlock>(axes, out, out)));
  }
}

at::Tensor RaiseBlock::forward(const at::Tensor& x, Tiles* tiles) const {
  at::Tensor y = first_->forward(x);
  for (size_t i = 0; i < ups_.size(); ++i) y = blocks_[i]->forward(ups_[i]->forward(y), tiles);
  return y;
}

double RaiseBlock::multiply_adds(int64_t places) const {
  const int64_t growth = power(2, axes_);
  double sum = first_->multiply_adds(places);
  for (size_t i = 0; i < ups_.size(); ++i) {
    places *= growth;
    sum += ups_[i]->multiply_adds(places) + blocks_[i]->multiply_adds(places * growth);
  }
  return sum;
}

MergeBlock::MergeBlock(int64_t axes, int64_t in, int64_t out, int64_t factor)
    : growth_(power(factor, axes)) {
  up_ = register_module("transp_conv.conv", std::make_shared<UpConv>(axes, in, out, factor));
  block_ = register_module("conv_block", std::make_shared<ResidualBlock>(axes, 2 * out, out));
}

at::Tensor MergeBlock::forward(const at::Tensor& x, const at::Tensor& skip, Tiles* tiles) const {
  const at::Tensor y = up_->forward(x);
  VT_CHECK(y.sizes().equals(skip.sizes()),
           "[conv] maps to be merged must be of one shape but are [{}] and [{}]",
           fmt::join(y.sizes(), ", "), fmt::join(skip.sizes(), ", "));
  return block_->forward(at::cat({y, skip}, 1), tiles);
}

double MergeBlock::multiply_adds(int64_t places) const {
  return up_->multiply_adds(places) + block_->multiply_adds(places * growth_);
}

}  // namespace vitrail::nn
