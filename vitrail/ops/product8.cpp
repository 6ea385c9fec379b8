#include "vitrail/ops/product8.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm.h"
#include "vitrail/kernels/quantize.h"
#include "vitrail/ops/on_device.h"
#include "vitrail/ops/product.h"

namespace vitrail::ops {
namespace {

using kernels::Fp8;
using kernels::GemmType;

constexpr Fp8 kFormat = Fp8::e4m3;

const uint8_t* bytes_in(const at::Tensor& x) {
  return static_cast<const uint8_t*>(x.const_data_ptr());
}
uint8_t* bytes_out(const at::Tensor& x) { return static_cast<uint8_t*>(x.mutable_data_ptr()); }

int64_t rows_of(const Codes& codes) { return codes.scales.size(0); }
int64_t width_of(const Codes& codes) { return codes.sizes.back(); }

/// The numbers of bytes, each row times its scale.
at::Tensor numbers(const at::Tensor& codes) {
  static const at::Tensor table = [] {
    at::Tensor values = at::empty({256}, at::kFloat);
    for (int code = 0; code < 256; ++code)
      values.mutable_data_ptr<float>()[code] =
          kernels::from_fp8(kFormat, static_cast<uint8_t>(code));
    return values;
  }();
  const at::Tensor all =
      at::index_select(table.to(codes.device()), 0, codes.flatten().to(at::kInt));
  return all.view(codes.sizes());
}

std::vector<int64_t> with_last(std::vector<int64_t> sizes, int64_t last) {
  sizes.back() = last;
  return sizes;
}

/// rows of A times rows of B, both with scales of rows: bf16 into d [m, n].
kernels::GemmShape row_shape(int64_t m, int64_t n, int64_t k) {
  kernels::GemmShape shape{.m = m, .n = n, .k = k, .b_transposed = true};
  shape.a_type = shape.b_type = kernels::gemm_type(kFormat);
  shape.row_scales = shape.fast_sums = true;
  return shape;
}

void input_gradient_on_gpu(const at::Tensor& dx, const Codes& dy, const Codes& weight, bool adds) {
  const OnDevice on(dx);
  kernels::GemmShape shape = row_shape(rows_of(dy), width_of(weight), width_of(dy));
  shape.adds = adds;
  gemm_library(dx.device())
      .run(shape,
           {.d = bf16_out(dx),
            .a8 = bytes_in(dy.values),
            .b8 = bytes_in(weight.transposed),
            .a_scales = f32_in(dy.scales),
            .b_scales = f32_in(weight.column_scales)},
           on.stream());
}

void check_products(const Codes& dy, const Codes& weight) {
  VT_CHECK(dy.has_rows() && weight.has_columns(),
           "[product8] rows of the gradient and columns of the weight must be there");
  VT_CHECK(width_of(dy) == rows_of(weight) && rows_of(weight) % 16 == 0,
           "[product8] a weight of {} outputs (a multiple of 16) must meet as many but got {}",
           rows_of(weight), width_of(dy));
}

}  // namespace

Codes empty_codes(const at::Tensor& like) {
  const int64_t rows = like.numel() / like.size(-1);
  const auto floats = like.options().dtype(at::kFloat);
  Codes codes;
  codes.sizes = like.sizes().vec();
  codes.values = at::empty({rows, like.size(-1)}, like.options().dtype(at::kByte));
  codes.scales = at::empty({rows}, floats);
  codes.largest = at::zeros({1}, floats);
  return codes;
}

kernels::CodeRows rows_out(const Codes& codes) {
  return {bytes_out(codes.values), f32_out(codes.scales), f32_out(codes.largest)};
}

Codes quantize(const at::Tensor& x) {
  VT_CHECK(x.scalar_type() == at::kBFloat16 && x.is_contiguous() && fits_codes(x.size(-1)),
           "[product8] rows must be bf16, contiguous and a multiple of 16 wide but are {} and {}",
           c10::toString(x.scalar_type()), x.size(-1));
  Codes codes = empty_codes(x);
  const kernels::CodeRows to = rows_out(codes);
  const kernels::QuantizeRows task{.format = kFormat,
                                   .rows = rows_of(codes),
                                   .width = x.size(-1),
                                   .x = bf16_in(x),
                                   .values = to.values,
                                   .scales = to.scales,
                                   .largest = to.largest};
  if (x.is_cuda()) {
    const OnDevice on(x);
    kernels::quantize_rows(task, on.stream());
  } else {
    kernels::quantize_rows_plain(task);
  }
  return codes;
}

void transpose(Codes& codes) {
  if (codes.has_columns()) return;
  VT_CHECK(codes.has_rows(), "[product8] rows must be there to be transposed");
  const int64_t rows = rows_of(codes), width = width_of(codes);
  codes.transposed = at::empty({width, kernels::transposed_stride(rows)}, codes.values.options());
  codes.column_scales = at::empty({width}, codes.scales.options());
  const kernels::TransposeQuantized task{.format = kFormat,
                                         .rows = rows,
                                         .width = width,
                                         .values = bytes_in(codes.values),
                                         .scales = f32_in(codes.scales),
                                         .largest = f32_in(codes.largest),
                                         .transposed = bytes_out(codes.transposed),
                                         .column_scales = f32_out(codes.column_scales)};
  if (codes.values.is_cuda()) {
    const OnDevice on(codes.values);
    kernels::transpose_quantized(task, on.stream());
  } else {
    kernels::transpose_quantized_plain(task);
  }
}

at::Tensor product(const Codes& x, const Codes& weight, const at::Tensor& bias,
                   const at::Tensor& added) {
  VT_CHECK(x.has_rows() && weight.has_rows(), "[product8] rows of both operands must be there");
  const int64_t out = rows_of(weight);
  VT_CHECK(width_of(x) == width_of(weight) && fits_codes(out),
           "[product8] a weight of {} inputs and {} outputs (a multiple of 16) must meet as many "
           "but got {}",
           width_of(weight), out, width_of(x));
  if (!x.values.is_cuda()) {
    at::Tensor y = at::matmul(numbers_of_rows(x), numbers_of_rows(weight).t());
    if (bias.defined()) y += bias.to(at::kFloat);
    if (added.defined()) y += added.to(at::kFloat);
    return y.to(at::kBFloat16);
  }
  const OnDevice on(x.values);
  at::Tensor y = at::empty(with_last(x.sizes, out), x.values.options().dtype(at::kBFloat16));
  kernels::GemmShape shape = row_shape(rows_of(x), out, width_of(x));
  shape.has_bias = bias.defined();
  shape.adds = added.defined();
  gemm_library(x.values.device())
      .run(shape,
           {.bias = bf16_in(bias),
            .c = bf16_in(added),
            .d = bf16_out(y),
            .a8 = bytes_in(x.values),
            .b8 = bytes_in(weight.values),
            .a_scales = f32_in(x.scales),
            .b_scales = f32_in(weight.scales)},
           on.stream());
  return y;
}

at::Tensor product_input_gradient(const Codes& dy, const Codes& weight) {
  check_products(dy, weight);
  if (!dy.values.is_cuda())
    return at::matmul(numbers_of_rows(dy), numbers_of_columns(weight).t()).to(at::kBFloat16);
  at::Tensor dx =
      at::empty(with_last(dy.sizes, width_of(weight)), dy.values.options().dtype(at::kBFloat16));
  input_gradient_on_gpu(dx, dy, weight, /*adds=*/false);
  return dx;
}

void add_product_input_gradient(const at::Tensor& dx, const Codes& dy, const Codes& weight) {
  check_products(dy, weight);
  if (dy.values.is_cuda()) return input_gradient_on_gpu(dx, dy, weight, /*adds=*/true);
  const at::Tensor added = at::matmul(numbers_of_rows(dy), numbers_of_columns(weight).t());
  dx.copy_(dx.to(at::kFloat) + added);
}

void add_weight_gradient(const at::Tensor& dweight, const Codes& dy, const Codes& x) {
  if (!dweight.defined()) return;
  VT_CHECK(dy.has_columns() && x.has_columns() && rows_of(dy) == rows_of(x),
           "[product8] columns of as many rows must be there of both operands");
  if (!dy.transposed.is_cuda()) {
    dweight.addmm_(numbers_of_columns(dy), numbers_of_columns(x).t());
    return;
  }
  const OnDevice on(dweight);
  kernels::GemmShape shape{.m = width_of(dy), .n = width_of(x), .k = dy.transposed.size(1)};
  shape.b_transposed = shape.adds = shape.is_f32 = true;
  shape.a_type = shape.b_type = kernels::gemm_type(kFormat);
  gemm_library(dweight.device())
      .run(shape,
           {.d = f32_out(dweight),
            .a8 = bytes_in(dy.transposed),
            .b8 = bytes_in(x.transposed),
            .a_scales = f32_in(dy.largest),
            .b_scales = f32_in(x.largest)},
           on.stream());
}

at::Tensor numbers_of_rows(const Codes& codes) {
  return (numbers(codes.values) * codes.scales.unsqueeze(1)).view(codes.sizes);
}

at::Tensor numbers_of_columns(const Codes& codes) {
  return numbers(codes.transposed).narrow(1, 0, rows_of(codes)) * codes.largest;
}

}  // namespace vitrail::ops
