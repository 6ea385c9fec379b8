#include "vitrail/models/unetr.h"

#include <numeric>

#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/leaf_grid.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/resample.h"

namespace vitrail::models {
namespace {

int64_t product(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{1}, std::multiplies<int64_t>());
}

/// Before anything is allocated.
const config::Model& checked(const config::Model& options) {
  VT_REQUIRE(ConfigError, options.decoder == "conv" || options.decoder == "linear",
             "[config] model.decoder must be conv or linear for unetr but got {}",
             options.decoder.value);
  VT_REQUIRE(ConfigError, !(options.skips && options.decoder == "linear"),
             "[config] model.decoder=linear reads no skips; set model.skips=false, or "
             "model.decoder=conv");
  VT_REQUIRE(
      ConfigError, !options.skips || options.depth >= 4,
      "[config] model.depth must be at least 4 for unetr with skips but got {}; add blocks, or "
      "set model.skips=false",
      options.depth);
  VT_REQUIRE(ConfigError, options.feature_size > 0,
             "[config] model.feature_size must be positive but got {}", options.feature_size);
  return options;
}

}  // namespace

Unetr::Unetr(const config::Model& options)
    : Segmenter(checked(options)), grid_(ops::patch_grid(options.image_size, options.patch_size)) {
  if (linear()) {
    head_ = register_module("head",
                            std::make_shared<nn::Linear>(options.embed_dim, options.num_classes));
    return;
  }
  options.skips ? add_skips() : add_doublings();
  out_ = register_module(
      "out.conv.conv", std::make_shared<nn::Conv>(axes(), options.feature_size, options.num_classes,
                                                  1, /*bias=*/true));
}

void Unetr::add_skips() {
  const int64_t k = axes(), D = options_.embed_dim, F = options_.feature_size;
  encoder1_ = register_module("encoder1.layer",
                              std::make_shared<nn::ResidualBlock>(k, known_channels(options_), F));
  encoder2_ = register_module("encoder2", std::make_shared<nn::RaiseBlock>(k, D, 2 * F, 2));
  encoder3_ = register_module("encoder3", std::make_shared<nn::RaiseBlock>(k, D, 4 * F, 1));
  encoder4_ = register_module("encoder4", std::make_shared<nn::RaiseBlock>(k, D, 8 * F, 0));
  decoder5_ = register_module("decoder5", std::make_shared<nn::MergeBlock>(k, D, 8 * F));
  decoder4_ = register_module("decoder4", std::make_shared<nn::MergeBlock>(k, 8 * F, 4 * F));
  decoder3_ = register_module("decoder3", std::make_shared<nn::MergeBlock>(k, 4 * F, 2 * F));
  decoder2_ = register_module(
      "decoder2", std::make_shared<nn::MergeBlock>(k, 2 * F, F, doubles_to_image() ? 2 : 1));
}

void Unetr::add_doublings() {
  const int64_t F = options_.feature_size;
  const std::vector<int64_t> widths{options_.embed_dim, 8 * F, 4 * F, 2 * F, F};
  for (int i = 0; i < 4; ++i)
    doublings_.push_back(
        register_module(fmt::format("decoder{}.transp_conv.conv", 5 - i),
                        std::make_shared<nn::UpConv>(axes(), widths[i], widths[i + 1])));
}

int64_t Unetr::places(int64_t scale) const {
  int64_t count = product(grid_);
  for (int64_t axis = 0; axis < axes(); ++axis) count *= scale;
  return count;
}

std::vector<std::string> Unetr::end_taps() const {
  std::vector<std::string> ends{"embed", "norm"};
  if (options_.skips) ends.insert(ends.end(), {"enc1", "enc2", "enc3", "enc4"});
  if (!linear()) ends.insert(ends.end(), {"dec5", "dec4", "dec3", "dec2"});
  return ends;
}

at::Tensor Unetr::image_of(const data::Batch& batch, at::ScalarType dtype) const {
  VT_CHECK(batch.image.defined(),
           "[unetr] the first skip reads the image; give 'image' beside the leaves, or set "
           "model.skips=false");
  const std::vector<int64_t> channels = encoder_->channels_of(batch);
  check_image(options_, static_cast<int64_t>(channels.size()), batch.image);
  const at::Tensor image = own_tile(batch.image).to(dtype);
  const int64_t known = known_channels(options_);
  std::vector<int64_t> every(known);
  std::iota(every.begin(), every.end(), 0);
  if (channels == every) return image;
  std::vector<int64_t> shape = image.sizes().vec();
  shape[1] = known;
  return at::zeros(shape, image.options().requires_grad(false))
      .index_copy(1, indices_.on(image.device(), channels), image);
}

at::Tensor Unetr::map(const at::Tensor& x_BLD, const at::Tensor& shares_BGL) const {
  if (!shares_BGL.defined()) return as_map(x_BLD, grid_);
  return as_map(at::matmul(shares_BGL.to(x_BLD.scalar_type()), x_BLD), grid_);
}

at::Tensor Unetr::to_image(const at::Tensor& x) const {
  return tiles_ ? tiles_->resize(x, options_.image_size)
                : ops::resize_linear(x, options_.image_size);
}

at::Tensor Unetr::own_tile(const at::Tensor& whole) const {
  return tiles_ ? tiles_->enter(whole) : whole;
}

void Unetr::offer(Taps& tap, const std::string& name, const at::Tensor& x) const {
  if (tap.wants(name)) tap.offer(name, tiles_ ? tiles_->leave(x) : x);
}

at::Tensor Unetr::decode(const at::Tensor& image, const at::Tensor& latent,
                         const std::vector<at::Tensor>& inner, Taps& tap) const {
  const auto offered = [&](const char* name, const at::Tensor& x) {
    offer(tap, name, x);
    return x;
  };
  const at::Tensor enc4 = offered("enc4", encoder4_->forward(inner[2], tiles_));
  at::Tensor x = offered("dec5", decoder5_->forward(latent, enc4, tiles_));
  const at::Tensor enc3 = offered("enc3", encoder3_->forward(inner[1], tiles_));
  x = offered("dec4", decoder4_->forward(x, enc3, tiles_));
  const at::Tensor enc2 = offered("enc2", encoder2_->forward(inner[0], tiles_));
  x = offered("dec3", decoder3_->forward(x, enc2, tiles_));
  if (!doubles_to_image()) x = to_image(x);
  const at::Tensor enc1 = offered("enc1", encoder1_->forward(image, tiles_));
  return out_->forward(offered("dec2", decoder2_->forward(x, enc1, tiles_)), tiles_);
}

at::Tensor Unetr::decode(const at::Tensor& latent, Taps& tap) const {
  at::Tensor x = latent;
  for (size_t i = 0; i < doublings_.size(); ++i) {
    x = doublings_[i]->forward(x);
    offer(tap, fmt::format("dec{}", 5 - i), x);
  }
  return out_->forward(doubles_to_image() ? x : to_image(x), tiles_);
}

std::vector<int> Unetr::taps(int) const {
  if (!options_.skips) return {};
  const int step = static_cast<int>(options_.depth / 4);
  return {step, 2 * step, 3 * step};
}

void Unetr::conclude(Flow& flow, const Known& known, Taps& tap, Output& out) {
  const data::Batch& batch = known.batch;
  const at::Tensor x_BLD = encoder_->normalised(flow.x_BTD, tap);
  const at::Tensor shares_BGL =
      adaptive() ? leaf_shares(batch.leaf_boxes, options_.image_size, grid_) : at::Tensor();
  if (linear()) {
    const at::Tensor logits = map(head_->forward(x_BLD), shares_BGL);
    finish(out, to_image(logits.to(ops::statistics_type(logits.scalar_type()))), batch.label);
    return;
  }
  const at::Tensor latent = own_tile(map(x_BLD, shares_BGL));
  std::vector<at::Tensor> inner = std::move(flow.inner);
  for (at::Tensor& x : inner) x = own_tile(map(x, shares_BGL));
  finish(out,
         options_.skips ? decode(image_of(batch, x_BLD.scalar_type()), latent, inner, tap)
                        : decode(latent, tap),
         batch.label);
}

double Unetr::train_flops_per_sample() const {
  const int64_t of_image = product(options_.image_size);
  double sum = 0.0;
  if (linear()) {
    sum = static_cast<double>(encoder_->num_patches() * options_.embed_dim * options_.num_classes);
  } else if (options_.skips) {
    sum = encoder1_->multiply_adds(of_image) + encoder2_->multiply_adds(places(1)) +
          encoder3_->multiply_adds(places(1)) + encoder4_->multiply_adds(places(1)) +
          decoder5_->multiply_adds(places(1)) + decoder4_->multiply_adds(places(2)) +
          decoder3_->multiply_adds(places(4)) +
          decoder2_->multiply_adds(doubles_to_image() ? places(8) : of_image);
  } else {
    for (size_t i = 0; i < doublings_.size(); ++i)
      sum += doublings_[i]->multiply_adds(places(int64_t{1} << i));
  }
  if (out_) sum += out_->multiply_adds(of_image);
  return with_decoder(sum);
}

InitialRule unetr_initial(const config::Model& options) { return segmenter_initial(options); }

}  // namespace vitrail::models
