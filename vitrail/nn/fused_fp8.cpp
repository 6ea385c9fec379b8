#include "vitrail/nn/fused_fp8.h"

#include <utility>

#include <fmt/format.h>

#include "vitrail/ops/product.h"

namespace vitrail::nn::fused {
namespace {

bool reads_codes(const Pass& pass) { return pass.options.products != Products::bf16; }
bool gradients_read_codes(const Pass& pass) { return !gradients_read_bf16(pass); }

ops::Codes weight_by_columns(const Linear& layer) {
  ops::Codes codes = ops::quantize(layer.weight());
  ops::transpose(codes);
  return codes;
}

}  // namespace

std::string codes_reason(Block& block) {
  const auto reason = [](const char* key, int64_t width) {
    return fmt::format("{} (fp8 takes multiples of 16 but got {})", key, width);
  };
  const BlockOptions& options = block.options();
  if (!ops::fits_codes(options.width)) return reason("model.embed_dim", options.width);
  if (!ops::fits_codes(options.mlp_hidden))
    return reason("model.mlp_hidden_dim", options.mlp_hidden);
  const int64_t qkv = block.attention().qkv().weight().size(0);
  return ops::fits_codes(qkv) ? "" : reason("model.num_heads: q, k and v together", qkv);
}

ops::NormCodes norm_codes(const Pass& pass, ops::Codes& codes) {
  if (!reads_codes(pass)) return {};
  return {&codes, gradients_read_bf16(pass)};
}

bool activation_writes_codes(const Pass& pass) {
  const MlpOptions& mlp = pass.block.mlp().options();
  return reads_codes(pass) && mlp.kind != MlpKind::swiglu &&
         !(pass.context.training && mlp.drop > 0.0);
}

bool gradients_read_bf16(const Pass& pass) {
  return pass.options.products != Products::fp8_gradients;
}

at::Tensor layer_product(const Pass& pass, const at::Tensor& x, ops::Codes& codes,
                         const Linear& layer, const at::Tensor& added) {
  if (!reads_codes(pass)) return ops::product(x, layer.weight(), layer.bias(), added);
  if (!codes.has_rows()) codes = ops::quantize(x);
  return ops::product(codes, ops::quantize(layer.weight()), layer.bias(), added);
}

void keep_for_gradient(const Pass& pass, at::Tensor* x, ops::Codes& codes) {
  if (!gradients_read_codes(pass)) {
    codes = {};
    return;
  }
  ops::transpose(codes);
  codes.values.reset();
  if (x) x->reset();
}

ReadGradient read_gradient(const Pass& pass, const at::Tensor& dy) {
  return read_gradient(pass, dy, reads_codes(pass) ? ops::quantize(dy) : ops::Codes());
}

ReadGradient read_gradient(const Pass& pass, const at::Tensor& dy, ops::Codes codes) {
  if (codes.has_rows() && gradients_read_codes(pass)) ops::transpose(codes);
  return {dy, std::move(codes)};
}

at::Tensor layer_input_gradient(const Pass& pass, const ReadGradient& dy, const Linear& layer) {
  if (!reads_codes(pass)) return ops::product_input_gradient(dy.values, layer.weight());
  return ops::product_input_gradient(dy.codes, weight_by_columns(layer));
}

void add_layer_input_gradient(const Pass& pass, const at::Tensor& dx, const ReadGradient& dy,
                              const Linear& layer) {
  if (reads_codes(pass))
    ops::add_product_input_gradient(dx, dy.codes, weight_by_columns(layer));
  else
    ops::add_product_input_gradient(dx, dy.values, layer.weight());
}

void add_layer_weight_gradient(const Pass& pass, const Linear& layer, const ReadGradient& dy,
                               const at::Tensor& x, ops::Codes& codes) {
  const at::Tensor dweight = gradient_of(layer.weight());
  if (!dweight.defined()) return;
  if (!gradients_read_codes(pass)) return ops::add_weight_gradient(dweight, dy.values, x);
  if (!codes.has_columns() && !codes.has_rows()) codes = ops::quantize(x);
  ops::transpose(codes);
  ops::add_weight_gradient(dweight, dy.codes, codes);
}

}  // namespace vitrail::nn::fused
