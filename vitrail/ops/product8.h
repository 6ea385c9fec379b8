#pragma once
/// The three products of a linear layer in numbers of 8 bits: matrices in codes of e4m3 with scales (kernels/quantize.h).
///
///   y = x W^T + b (+ c)   scales of the rows of x and of W
///   dx = dy W (+ dx)      scales of the rows of dy, one of W
///   dW += dy^T x          one scale each
/// Results are rounded once, to bf16; dW is fp32.
/// Device   CUDA: the tensor cores (kernels/gemm.h), y and dx with their fast sums; CPU: the same codes, products in fp32.
/// Shapes   x [..., in], y and c [..., out], W [out, in], b [out], all bf16 and contiguous; in and out multiples of 16.
/// Paper    Micikevicius et al. 2022, arXiv:2209.05433; scales of rows: Dettmers et al. 2022, arXiv:2208.07339.

#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::kernels {
struct CodeRows;
}

namespace vitrail::ops {

/// A matrix [rows, width] as codes: all axes but the last are its rows.
struct Codes {
  std::vector<int64_t> sizes;
  at::Tensor values;         // bytes [rows, width]
  at::Tensor scales;         // fp32 [rows]
  at::Tensor largest;        // fp32 [1], of the scales
  at::Tensor transposed;     // bytes [width, rows up to a multiple of 16]; its scale is `largest`
  at::Tensor column_scales;  // fp32 [width]: `largest` for each row of `transposed`
  bool has_rows() const { return values.defined(); }
  bool has_columns() const { return transposed.defined(); }
};

/// Whether rows of this width can be multiplied.
inline bool fits_codes(int64_t width) { return width > 0 && width % 16 == 0; }

Codes quantize(const at::Tensor& x);
/// Memory for the codes of a matrix of these sizes, for kernels that write them (kernels/fp8.h) beside other results.
Codes empty_codes(const at::Tensor& like);
kernels::CodeRows rows_out(const Codes& codes);
/// Makes `transposed`, from `values`, where it is not there.
void transpose(Codes& codes);

at::Tensor product(const Codes& x, const Codes& weight, const at::Tensor& bias,
                   const at::Tensor& added = {});
/// The weight's columns must be there.
at::Tensor product_input_gradient(const Codes& dy, const Codes& weight);
void add_product_input_gradient(const at::Tensor& dx, const Codes& dy, const Codes& weight);
/// The columns of both must be there. dweight undefined: not wanted.
void add_weight_gradient(const at::Tensor& dweight, const Codes& dy, const Codes& x);

/// The numbers that codes stand for, in fp32: those of `values` [sizes], of `transposed` [width, rows].
at::Tensor numbers_of_rows(const Codes& codes);
at::Tensor numbers_of_columns(const Codes& codes);

}  // namespace vitrail::ops
