#include "vitrail/models/rat.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/max_pool3d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/detection_head.h"
#include "vitrail/models/detection_losses.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/rat_blocks.h"
#include "vitrail/models/rat_scales.h"
#include "vitrail/ops/norm.h"

namespace vitrail::models {
namespace {

constexpr int64_t kMostMapBytes = int64_t{1} << 30;

/// One logit of class 1 instead of one for each class.
bool is_binary(const config::Model& options) {
  return options.loss == "bce" || options.loss == "bce_dice";
}

at::Tensor as_map(const at::Tensor& x_BLD, const std::vector<int64_t>& sides) {
  std::vector<int64_t> shape{x_BLD.size(0), x_BLD.size(2)};
  shape.insert(shape.end(), sides.begin(), sides.end());
  return x_BLD.transpose(1, 2).reshape(shape);
}

}  // namespace

/// The segmentation head: D -> D / 2 -> D / 4 -> outputs for every token, with ReLU between.
class TokenMlp : public nn::Module {
 public:
  TokenMlp(int64_t width, int64_t outputs) {
    const int64_t half = std::max<int64_t>(1, width / 2), quarter = std::max<int64_t>(1, width / 4);
    fc1_ = register_module("fc1", std::make_shared<nn::Linear>(width, half));
    fc2_ = register_module("fc2", std::make_shared<nn::Linear>(half, quarter));
    fc3_ = register_module("fc3", std::make_shared<nn::Linear>(quarter, outputs));
  }
  at::Tensor forward(const at::Tensor& x) const {
    return fc3_->forward(fc2_->forward(fc1_->forward(x).relu()).relu());
  }

 private:
  std::shared_ptr<nn::Linear> fc1_, fc2_, fc3_;
};

Rat::Rat(const config::Model& options) : options_(checked_rat(options)) {
  grids_ = scale_grids(options);
  const int64_t D = options.embed_dim;
  if (options.rat.position == "absolute")
    for (const nn::CellGrid& grid : grids_) positions_.emplace_back(sincos_of_cells(grid, D));
  proj_ = register_module(
      "proj", std::make_shared<nn::Conv>(static_cast<int64_t>(options.image_size.size()),
                                         options.in_channels, D, options.rat.proj_kernel,
                                         options.patch_bias));
  blocks_ = register_module("blocks", std::make_shared<nn::Stack>(rat_blocks(options, grids_)));
  if (options.final_norm)
    norm_ = register_module("norm", std::make_shared<nn::Norm>(D, norm_options(options)));
  const int64_t outputs = is_binary(options) ? 1 : options.num_classes;
  if (options.rat.head == "segmentation")
    segmentation_ = register_module("head", std::make_shared<TokenMlp>(D, outputs));
  if (options.rat.head == "classification" && options.num_classes > 0)
    classes_ = register_module("head", std::make_shared<nn::Linear>(D, options.num_classes));
  if (options.rat.head == "detection") {
    detection_ = register_module("head", std::make_shared<DetectionHead>(options, D));
    places_ = grid_places(final_grid().sides);
  }
}

Rat::~Rat() = default;

Task Rat::task() const {
  if (options_.rat.head == "segmentation") return Task::segmentation;
  return options_.rat.head == "detection" ? Task::detection : Task::classification;
}

nn::GroupingBlock& Rat::block(int i) const {
  return static_cast<nn::GroupingBlock&>(blocks_->block(i));
}

const nn::CellGrid& Rat::final_grid() const {
  return block(blocks_->depth() - 1).scales_out().front();
}

std::vector<ScaleInput> Rat::scales_of(const at::Tensor& image) const {
  VT_CHECK(image.defined() && image.dim() == static_cast<int64_t>(options_.image_size.size()) + 2 &&
               image.size(1) == options_.in_channels &&
               image.sizes().slice(2) == at::IntArrayRef(options_.image_size),
           "[rat] image must be [B, {}, {}] but got [{}]", options_.in_channels,
           fmt::join(options_.image_size, ", "),
           image.defined() ? fmt::format("{}", fmt::join(image.sizes(), ", ")) : "nothing");
  std::vector<ScaleInput> scales;
  for (const nn::CellGrid& grid : grids_) scales.push_back({resize_(image, grid.sides), {}});
  return scales;
}

at::Tensor Rat::embedded(const std::vector<ScaleInput>& scales) const {
  const at::ScalarType type = named_parameters()[0].tensor.scalar_type();
  std::vector<at::Tensor> tokens;
  for (size_t s = 0; s < scales.size(); ++s) {
    at::Tensor x_BLD = proj_->forward(scales[s].image.to(type)).flatten(2).transpose(1, 2);
    if (!positions_.empty()) {
      // A table's copy on the device is a cache.
      x_BLD = x_BLD + const_cast<FixedTable&>(positions_[s]).like(x_BLD);
    }
    tokens.push_back(x_BLD);
  }
  return tokens.size() == 1 ? tokens[0].contiguous() : at::cat(tokens, 1);
}

/// Hidden pixels hide every token whose convolution reads them.
at::Tensor Rat::valid_tokens(const std::vector<ScaleInput>& scales) const {
  bool any = false;
  for (const ScaleInput& scale : scales) any |= scale.valid.defined();
  if (!any) return {};
  const int64_t kernel = options_.rat.proj_kernel;
  const std::vector<int64_t> edge(options_.image_size.size(), kernel),
      step(options_.image_size.size(), 1), padding(options_.image_size.size(), (kernel - 1) / 2);
  std::vector<at::Tensor> tokens;
  for (size_t s = 0; s < scales.size(); ++s) {
    if (!scales[s].valid.defined()) {
      tokens.push_back(at::ones({scales[s].image.size(0), grids_[s].cells()},
                                scales[s].image.options().dtype(at::kBool)));
      continue;
    }
    const at::Tensor hidden = scales[s].valid.logical_not().to(at::kFloat).unsqueeze(1);
    const at::Tensor wide = edge.size() == 2 ? at::max_pool2d(hidden, edge, step, padding)
                                             : at::max_pool3d(hidden, edge, step, padding);
    tokens.push_back(wide.lt(0.5).flatten(1));
  }
  return at::cat(tokens, 1);
}

at::Tensor Rat::run_blocks(const at::Tensor& x_BLD, const nn::Context& context, Taps& tap) const {
  bool wants_maps = false;
  for (size_t s = 0; s < grids_.size(); ++s)
    wants_maps |=
        tap.wants(fmt::format("maps.{}", s)) || tap.wants(fmt::format("assignments.{}", s));
  if (!wants_maps) return tap.run("blocks", *blocks_, x_BLD, context);
  for (int i = 0; i < blocks_->depth(); ++i)
    for (size_t s = 0; s < grids_.size(); ++s) {
      const int64_t bytes = 4 * x_BLD.size(0) * options_.num_heads *
                            block(i).scales_out()[s].cells() * grids_[s].cells();
      VT_REQUIRE(ConfigError, bytes <= kMostMapBytes,
                 "[taps] maps of block {} would take {:.1f} GiB; ask for them with a smaller "
                 "model.image_size or one sample",
                 i, static_cast<double>(bytes) / 1073741824.0);
    }
  std::vector<nn::ScaleMaps> maps(static_cast<size_t>(blocks_->depth()));
  for (int i = 0; i < blocks_->depth(); ++i) block(i).set_maps(&maps[static_cast<size_t>(i)]);
  at::Tensor y_BLD;
  try {
    y_BLD = tap.run("blocks", *blocks_, x_BLD, context);
  } catch (...) {
    for (int i = 0; i < blocks_->depth(); ++i) block(i).set_maps(nullptr);
    throw;
  }
  for (int i = 0; i < blocks_->depth(); ++i) block(i).set_maps(nullptr);
  offer_maps(maps, tap);
  return y_BLD;
}

void Rat::offer_maps(const std::vector<nn::ScaleMaps>& maps, Taps& tap) const {
  for (size_t s = 0; s < grids_.size(); ++s) {
    at::Tensor share = maps[0][s].share, assignment = maps[0][s].assignment;
    for (size_t i = 1; i < maps.size(); ++i) {
      share = at::matmul(maps[i][s].share, share);
      assignment = at::matmul(maps[i][s].assignment, assignment);
    }
    tap.offer(fmt::format("maps.{}", s), share.detach());
    tap.offer(fmt::format("assignments.{}", s), assignment.detach());
  }
}

void Rat::segment(const at::Tensor& x_BLD, const data::Batch& batch, Output& out) const {
  const at::Tensor logits_BLC = segmentation_->forward(x_BLD);
  const at::Tensor coarse =
      as_map(logits_BLC.to(ops::statistics_type(logits_BLC.scalar_type())), final_grid().sides);
  const at::Tensor whole = resize_(coarse, options_.image_size);
  out.output = is_binary(options_) ? at::cat({at::zeros_like(whole), whole}, 1) : whole;
  if (batch.label.defined()) out.loss = segmentation_loss(out.output, batch.label, options_);
}

void Rat::classify(const at::Tensor& x_BLD, const data::Batch& batch, const nn::Draws& draws,
                   Output& out) const {
  const at::Tensor features =
      end_dropout(x_BLD.mean(1), options_.drop_rate, draws, EndDraw::head_drop);
  const at::Tensor found = classes_ ? classes_->forward(features) : features;
  out.output = found.to(ops::statistics_type(found.scalar_type()));
  if (!classes_ || !batch.label.defined() || batch.label.dim() != 1) return;
  out.loss =
      batch.label_other.defined()
          ? classification_loss(
                out.output, MixedLabel{batch.label, batch.label_other, batch.label_share}, options_)
          : classification_loss(out.output, batch.label, options_);
}

void Rat::detect(const at::Tensor& x_BLD, const data::Batch& batch, Output& out) {
  if (places_.device() != x_BLD.device()) places_ = places_.to(x_BLD.device());
  finish_detection(out, detection_->forward(x_BLD, places_), batch, options_);
}

Output Rat::run(const std::vector<ScaleInput>& scales, const data::Batch& batch,
                const nn::Draws& draws, const std::vector<std::string>& wanted) {
  VT_CHECK(scales.size() == grids_.size(), "[rat] there must be {} scales but got {}",
           grids_.size(), scales.size());
  for (size_t s = 0; s < scales.size(); ++s)
    VT_CHECK(scales[s].image.sizes().slice(2) == at::IntArrayRef(grids_[s].sides) &&
                 (!scales[s].valid.defined() ||
                  scales[s].valid.sizes().slice(1) == at::IntArrayRef(grids_[s].sides)),
             "[rat] image and mask of scale {} must have sides {} but the image is [{}]", s,
             fmt::join(grids_[s].sides, "x"), fmt::join(scales[s].image.sizes(), ", "));
  Output out;
  std::vector<std::string> ends{"embed", "norm"};
  for (size_t s = 0; s < grids_.size(); ++s) {
    ends.push_back(fmt::format("maps.{}", s));
    ends.push_back(fmt::format("assignments.{}", s));
  }
  Taps tap(wanted, ends, {{"blocks", blocks_->depth()}}, out.taps);
  at::Tensor x_BLD = embedded(scales);
  tap.offer("embed", x_BLD);
  nn::Context context(draws);
  context.key_mask_BT = valid_tokens(scales);
  x_BLD = run_blocks(x_BLD, context, tap).narrow(1, 0, final_grid().cells());
  if (norm_) x_BLD = norm_->forward(x_BLD);
  tap.offer("norm", x_BLD);
  if (segmentation_) {
    segment(x_BLD, batch, out);
  } else if (detection_) {
    detect(x_BLD, batch, out);
  } else {
    classify(x_BLD, batch, draws, out);
  }
  return out;
}

Output Rat::forward(const data::Batch& batch, const nn::Draws& draws,
                    const std::vector<std::string>& taps) {
  return run(scales_of(batch.image), batch, draws, taps);
}

at::Tensor Rat::features(const data::Batch& batch, const nn::Draws& draws) {
  return forward(batch, draws, {"norm"}).taps.at("norm").mean(1);
}

std::vector<UnitSpec> Rat::units() {
  const std::vector<nn::NamedTensor> all = named_parameters();
  std::vector<UnitSpec> units{{"embed", select(all, {"proj."})}};
  add_trunk_units(units, all, "blocks", blocks_.get());
  units.push_back({"head", remaining(all, units)});
  return units;
}

int64_t Rat::tokens_per_sample() const {
  int64_t count = 0;
  for (const nn::CellGrid& grid : grids_) count += grid.cells();
  return count;
}

double Rat::train_flops_per_sample() const {
  double multiply_adds = proj_->multiply_adds(tokens_per_sample());
  const auto D = static_cast<double>(options_.embed_dim);
  for (int i = 0; i < blocks_->depth(); ++i) {
    double joint = 0;
    for (size_t s = 0; s < grids_.size(); ++s) {
      multiply_adds += block(i).grouping().multiply_adds(block(i).scales_in()[s]);
      joint += static_cast<double>(block(i).scales_out()[s].cells());
    }
    const auto hidden = static_cast<double>(block(i).options().mlp_hidden);
    multiply_adds += joint * (4.0 * D * D + 2.0 * D * hidden) + 2.0 * joint * joint * D;
  }
  double flops = 6.0 * multiply_adds;
  const auto tokens = static_cast<double>(final_grid().cells());
  if (segmentation_) flops += 6.0 * static_cast<double>(segmentation_->parameter_count()) * tokens;
  if (classes_) flops += 6.0 * static_cast<double>(classes_->parameter_count());
  if (detection_) flops += detection_->train_flops(final_grid().cells());
  return flops;
}

bool Rat::repeats() const {
  const config::Model& o = options_;
  const bool draws =
      o.drop_path_rate > 0 || o.attn_drop_rate > 0 || o.proj_drop_rate > 0 || o.drop_rate > 0;
  return !draws && !detection_ && o.class_weights.empty();
}

}  // namespace vitrail::models
