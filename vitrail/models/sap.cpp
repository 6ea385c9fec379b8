#include "vitrail/models/sap.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/patch.h"

namespace vitrail::models {
namespace {

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

/// Sides of the mosaic in leaves.
std::vector<int64_t> mosaic(int64_t leaves, int64_t axes) {
  const int64_t side = std::llround(std::pow(static_cast<double>(leaves), 1.0 / double(axes)));
  VT_REQUIRE(ConfigError, power(side, axes) == leaves,
             "[config] model.adaptive.fixed_length must be s^{} for sap, whose output is a mosaic "
             "of leaves, but got {}; the nearest is {}",
             axes, leaves, power(side, axes));
  return std::vector<int64_t>(axes, side);
}

std::vector<int64_t> grid_of(const config::Model& options) {
  if (options.adaptive.fixed_length == 0)
    return ops::patch_grid(options.image_size, options.patch_size);
  return mosaic(options.adaptive.fixed_length, static_cast<int64_t>(options.image_size.size()));
}

/// Before anything is allocated.
const config::Model& checked(const config::Model& options) {
  VT_REQUIRE(ConfigError, options.decoder_embed_dim > 0,
             "[config] model.decoder_embed_dim must be positive but got {}",
             options.decoder_embed_dim);
  grid_of(options);
  return options;
}

}  // namespace

Sap::Sap(const config::Model& options) : Segmenter(checked(options)), grid_(grid_of(options)) {
  std::vector<int64_t> neck{options.embed_dim, options.decoder_embed_dim};
  std::vector<int64_t> head{options.num_classes, options.decoder_embed_dim};
  neck.insert(neck.end(), axes(), options.patch_size);
  head.insert(head.end(), axes(), 1);
  neck_ = register_parameter("neck.weight", neck);
  head_ = register_parameter("head.weight", head);
  head_bias_ = register_parameter("head.bias", {options.num_classes});
}

at::Tensor Sap::decode(const at::Tensor& x_BLD) const {
  // [classes, W] times [D, W, P^k] -> [D, classes * P^k]
  const at::Tensor both = at::matmul(head_.flatten(1), neck_.flatten(2)).flatten(1);
  const at::Tensor logits = ops::unpatchify(at::matmul(x_BLD, both), grid_, options_.patch_size,
                                            ops::PatchOrder::channel_first);
  const at::ScalarType wide = ops::statistics_type(logits.scalar_type());
  std::vector<int64_t> shape(axes() + 2, 1);
  shape[1] = options_.num_classes;
  return logits.to(wide) + head_bias_.to(wide).view(shape);
}

/// Padding leaves have no pixels, so nothing that a label says of them counts.
at::Tensor Sap::label_of(const data::Batch& batch) const {
  if (!batch.label.defined() || !adaptive()) return batch.label;
  std::vector<int64_t> shape{batch.size()};
  shape.insert(shape.end(), grid_.begin(), grid_.end());
  at::Tensor real = real_leaves(batch.leaf_boxes).view(shape);
  for (int64_t axis = 0; axis < axes(); ++axis)
    real = real.repeat_interleave(options_.patch_size, 1 + axis);
  VT_CHECK(batch.label.sizes().equals(real.sizes()),
           "[sap] labels must cover the mosaic, [{}], but are [{}]", fmt::join(real.sizes(), ", "),
           fmt::join(batch.label.sizes(), ", "));
  return batch.label.masked_fill(real.logical_not(), -1);
}

Output Sap::forward(const data::Batch& batch, const nn::Draws& draws,
                    const std::vector<std::string>& taps) {
  Output out;
  Taps tap(taps, {"embed", "norm"}, {{"blocks", encoder_->blocks().depth()}}, out.taps);
  const at::Tensor logits = decode(encoder_->run(encoder_->embed(batch, draws), tap));
  return finish(std::move(out), logits, label_of(batch));
}

double Sap::train_flops_per_sample() const {
  return with_decoder(static_cast<double>(encoder_->num_patches() * options_.embed_dim *
                                          options_.num_classes * patch_pixels(options_)));
}

InitialRule sap_initial(const config::Model& options) { return segmenter_initial(options); }

}  // namespace vitrail::models
