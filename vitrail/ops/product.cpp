#include "vitrail/ops/product.h"

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/stack.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

at::Tensor as_rows(const at::Tensor& x) { return x.view({-1, x.size(-1)}); }

std::vector<int64_t> with_last(const at::Tensor& x, int64_t last) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = last;
  return shape;
}

int64_t rows_of(const at::Tensor& x) { return x.numel() / x.size(-1); }

/// dx = dy W (+ dx) on a GPU.
void input_gradient_on_gpu(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& weight,
                           bool adds) {
  const OnDevice on(dy);
  kernels::GemmShape shape{.m = rows_of(dy), .n = weight.size(1), .k = weight.size(0)};
  shape.adds = adds;
  gemm_library(dy.device())
      .run(shape, {.a = bf16_in(dy), .b = bf16_in(weight), .d = bf16_out(dx)}, on.stream());
}

}  // namespace

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const at::Tensor& added) {
  if (!runs_kernels(x)) {
    at::Tensor y = at::linear(x, weight, bias);
    return added.defined() ? y.add_(added) : y;
  }
  const OnDevice on(x);
  at::Tensor y = at::empty(with_last(x, weight.size(0)), x.options());
  kernels::GemmShape shape{.m = rows_of(x), .n = weight.size(0), .k = weight.size(1)};
  shape.b_transposed = true;
  shape.has_bias = bias.defined();
  shape.adds = added.defined();
  const kernels::GemmOperands operands{.a = bf16_in(x),
                                       .b = bf16_in(weight),
                                       .bias = bf16_in(bias),
                                       .c = bf16_in(added),
                                       .d = bf16_out(y)};
  gemm_library(x.device()).run(shape, operands, on.stream());
  return y;
}

at::Tensor product_input_gradient(const at::Tensor& dy, const at::Tensor& weight) {
  if (!runs_kernels(dy)) return at::matmul(dy, weight);
  at::Tensor dx = at::empty(with_last(dy, weight.size(1)), dy.options());
  input_gradient_on_gpu(dx, dy, weight, /*adds=*/false);
  return dx;
}

void add_product_input_gradient(const at::Tensor& dx, const at::Tensor& dy,
                                const at::Tensor& weight) {
  if (runs_kernels(dy))
    input_gradient_on_gpu(dx, dy, weight, /*adds=*/true);
  else
    dx.add_(at::matmul(dy, weight));
}

void add_weight_gradient(const at::Tensor& dweight, const at::Tensor& dy, const at::Tensor& x) {
  if (!dweight.defined()) return;
  if (!runs_kernels(dy)) {
    const at::ScalarType wide = dweight.scalar_type();
    dweight.addmm_(as_rows(dy).to(wide).t(), as_rows(x).to(wide));
    return;
  }
  const OnDevice on(dy);
  kernels::GemmShape shape{.m = dy.size(-1), .n = x.size(-1), .k = rows_of(dy)};
  shape.a_transposed = shape.adds = shape.is_f32 = true;
  gemm_library(dy.device())
      .run(shape, {.a = bf16_in(dy), .b = bf16_in(x), .d = f32_out(dweight)}, on.stream());
}

at::Tensor row_product(const at::Tensor& row, const at::Tensor& weight) {
  if (!runs_kernels(weight)) return at::mv(weight.to(row.scalar_type()).t(), row);
  const OnDevice on(weight);
  // bf16 holds 8 bits of a sum, the rest of it 8 more.
  const at::Tensor upper = row.to(at::kBFloat16);
  const at::Tensor parts = at::stack({upper, (row - upper).to(at::kBFloat16)});
  const at::Tensor products = at::empty({2, weight.size(1)}, row.options());
  kernels::GemmShape shape{.m = 2, .n = weight.size(1), .k = weight.size(0)};
  shape.is_f32 = true;
  gemm_library(weight.device())
      .run(shape, {.a = bf16_in(parts), .b = bf16_in(weight), .d = f32_out(products)}, on.stream());
  return products.sum(0);
}

kernels::GemmLibrary& gemm_library(at::Device device) {
  static std::mutex mutex;
  // Never destroyed: at exit the driver may be gone first.
  static auto& libraries = *new std::map<int, std::unique_ptr<kernels::GemmLibrary>>();
  VT_CHECK(device.is_cuda(), "[product] a GPU's library was asked for on {}", device.str());
  const std::lock_guard lock(mutex);
  std::unique_ptr<kernels::GemmLibrary>& library = libraries[device.index()];
  if (!library) library = std::make_unique<kernels::GemmLibrary>(device.index());
  return *library;
}

void tune_products(at::Device device, double seconds) {
  kernels::GemmLibrary& library = gemm_library(device);
  std::vector<kernels::GemmShape> shapes;
  for (const kernels::GemmChoice& choice : library.choices())
    if (choice.ms == 0.0) shapes.push_back(choice.shape);
  if (shapes.empty()) return;
  const c10::DeviceGuard guard(device);
  library.tune(shapes, seconds, current_stream(device));
}

}  // namespace vitrail::ops
