#pragma once
/// The products of a fused block's linear layers, in bf16 or in numbers of 8 bits (ops/product8.h): one seam for both.
///
/// In a pass without fp8 these are the products of ops/product.h, and Codes stay empty. In one with fp8 y = x W^T and
/// dx = dy W read codes, made where they are first asked for; weights become codes where they are read, in each pass anew,
/// so that they are always those of the weights as they are. dW += dy^T x reads bf16, or with Products::fp8_gradients
/// codes as well: forward then keeps an input's codes by columns instead of the input.

#include "vitrail/nn/fused_block.h"

namespace vitrail::nn::fused {

/// Which width keeps a block's products from fp8, in words; empty: none does.
std::string codes_reason(Block& block);

/// What a norm in front of layers writes: y, or its codes in `codes`, or both.
ops::NormCodes norm_codes(const Pass& pass, ops::Codes& codes);
/// Whether the activation writes codes itself: GELU, without dropout behind it.
bool activation_writes_codes(const Pass& pass);
/// Whether weight gradients read bf16.
bool gradients_read_bf16(const Pass& pass);

/// x W^T + b (+ added). Leaves the codes of x by rows in `codes` for further layers that read x.
at::Tensor layer_product(const Pass& pass, const at::Tensor& x, ops::Codes& codes,
                         const Linear& layer, const at::Tensor& added = {});
/// After the last product of x: leaves of x and of its codes what the weight gradient reads. `x` null: it is kept anyway. x may be undefined where its codes are there.
void keep_for_gradient(const Pass& pass, at::Tensor* x, ops::Codes& codes);

/// A gradient as products read it.
struct ReadGradient {
  at::Tensor values;
  ops::Codes codes;
};
ReadGradient read_gradient(const Pass& pass, const at::Tensor& dy);
/// The same where codes by rows are there already.
ReadGradient read_gradient(const Pass& pass, const at::Tensor& dy, ops::Codes codes);
at::Tensor layer_input_gradient(const Pass& pass, const ReadGradient& dy, const Linear& layer);
void add_layer_input_gradient(const Pass& pass, const at::Tensor& dx, const ReadGradient& dy,
                              const Linear& layer);
/// Adds to the .grad of the layer's weight. `x` may be gone where its codes by columns are there.
void add_layer_weight_gradient(const Pass& pass, const Linear& layer, const ReadGradient& dy,
                               const at::Tensor& x, ops::Codes& codes);

}  // namespace vitrail::nn::fused
