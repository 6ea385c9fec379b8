#pragma once
/// The plain loops against ATen's autograd in fp64.
///
/// Tolerance: a result in bf16 is within 2^-8 of itself (one rounding, half a unit in the last place) plus 2e-6 of the
/// tensor's largest value for what fp32 loses where terms cancel (worst seen: printed). What is made of `roundings`
/// tensors that were rounded on the way may be that many times 2^-8 off.

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "vitrail/kernels/bf16.h"

namespace vitrail::testing {

template <class T>
at::Tensor wide(const std::vector<T>& values, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  auto* to = tensor.mutable_data_ptr<double>();
  for (size_t i = 0; i < values.size(); ++i)
    if constexpr (std::is_same_v<T, uint16_t>)
      to[i] = kernels::from_bf16(values[i]);
    else
      to[i] = values[i];
  return tensor;
}
template <class T>
at::Tensor leaf(const std::vector<T>& values, at::IntArrayRef shape) {
  return wide(values, shape).set_requires_grad(true);
}

/// Compares and prints the worst error in units of what is allowed.
template <class T>
void expect_like(const at::Tensor& expected, const std::vector<T>& actual, double relative,
                 double of_largest, const std::string& what) {
  const at::Tensor flat = expected.detach().contiguous().view({-1});
  ASSERT_EQ(flat.numel(), static_cast<int64_t>(actual.size())) << what;
  const at::Tensor error = (wide(actual, {flat.numel()}) - flat).abs();
  const at::Tensor allowed = flat.abs() * relative + flat.abs().max() * of_largest + 1e-30;
  const double worst = (error / allowed).max().item<double>();
  EXPECT_LE(worst, 1.0) << what;
  std::printf("%-44s %.2f of the error allowed (%.1e of a value + %.1e of the largest)\n",
              what.c_str(), worst, relative, of_largest);
}

constexpr double kRounding = 0x1p-8;  // of bf16
constexpr double kCancelled = 2e-6;   // of fp32, relative to the largest value

}  // namespace vitrail::testing
