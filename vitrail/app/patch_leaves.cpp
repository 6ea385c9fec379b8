#include "vitrail/app/patch_leaves.h"

#include <algorithm>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include "vitrail/models/feature_scorer.h"
#include "vitrail/models/leaves.h"
#include "vitrail/models/mixed_resolution.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/compat_ucf.h"

namespace vitrail::app {
namespace {

template <class T>
std::span<const T> span_of(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), static_cast<size_t>(tensor.numel())};
}

bool is_mixed(const config::Model& model) { return model.mixed_resolution.num_tokens > 0; }

std::string divided_by(const config::Model& model) {
  if (is_mixed(model)) return model.mixed_resolution.scorer.value;
  return model.adaptive.compat != "none" ? "edges" : model.adaptive.importance.value;
}

/// bytes [T, c, sides...] -> uint8 [T, sides...]: the other program's maps, the largest value of each as 255.
at::Tensor ucf_maps(const at::Tensor& bytes, const at::Tensor& edges_B3) {
  const int32_t* row = edges_B3.const_data_ptr<int32_t>();
  const at::IntArrayRef sides = bytes.sizes().slice(2);
  at::Tensor maps = at::zeros_like(bytes.select(1, 0).contiguous());
  for (int64_t tree = 0; tree < bytes.size(0); ++tree) {
    const at::Tensor own = bytes.select(0, tree).contiguous();
    const patching::UcfMap map =
        patching::ucf_map(span_of<uint8_t>(own), bytes.size(1), sides, {row[0], row[1], row[2]});
    const int64_t most = std::max(*std::ranges::max_element(map.values), 1);
    std::ranges::transform(map.values,
                           maps.mutable_data_ptr<uint8_t>() + tree * std::ssize(map.values),
                           [&](int64_t value) { return static_cast<uint8_t>(255 * value / most); });
  }
  return maps;
}

/// uint8 [T, sides...] of adaptive leaves; channels with trees of their own are samples of their own.
at::Tensor map_of(const config::Model& model, const data::Batch& batch, int64_t trees,
                  const nn::Draws& draws) {
  if (model.adaptive.importance == "feature_based")
    return models::FeatureScorer(model.adaptive.scorer_weights)
        .importance(batch.image, batch.pixel_range);
  const auto samples = [&](const at::Tensor& tensor) {
    return trees > 1 ? tensor.transpose(0, 1).contiguous() : tensor;
  };
  const at::Tensor bytes = patching::to_bytes(samples(batch.image), samples(batch.pixel_range));
  const at::Tensor edges_B3 = patching::edge_options(patching::leaf_options(model), draws.seed,
                                                     batch.epoch, draws.sample_ids, draws.training);
  if (model.adaptive.compat == "ucf-vit") return ucf_maps(bytes, edges_B3);
  return patching::importance_maps(bytes, patching::leaf_options(model),
                                   edges_B3.expand({trees, 3}).contiguous());
}

/// uint8 [1, H, W] of mixed resolution: scores of the patches of twice the smallest edge, the largest as 255.
at::Tensor scores_of(const config::Model& model, const data::Batch& batch, const nn::Draws& draws) {
  const at::IntArrayRef sides(model.image_size);
  const models::MixedResolution mixed(model);
  const std::vector<at::Tensor> levels = mixed.scores(batch.image, batch.pixel_range, draws);
  if (levels.size() < 2) return at::zeros({1, sides[0], sides[1]}, at::kByte);
  const at::Tensor& level = levels[1];
  const double largest = level.max().item<double>();
  const at::Tensor shades = level.mul(largest > 0 ? 255 / largest : 0).round().clamp(0, 255);
  return shades.repeat_interleave(sides[0] / level.size(1), 1)
      .repeat_interleave(sides[1] / level.size(2), 2)
      .to(at::kByte)
      .contiguous();
}

/// The leaves of what people see, as the model takes them of its image, and the picture they make.
patching::Resample resample_of(const config::Model& model) {
  return is_mixed(model) ? patching::Resample::linear : patching::leaf_options(model).resample;
}
at::Tensor tokens_of(const config::Model& model, const at::Tensor& values,
                     const at::Tensor& boxes) {
  if (!is_mixed(model))
    return patching::serialise(values, boxes, model.patch_size, resample_of(model));
  const models::MixedResolution mixed(model);
  return mixed.tokens(values, boxes);
}

/// `values` as people see them: 0 ... 1, widened where the image goes beyond, or from its least to its largest value
/// when it has no range of its own.
class Shades {
 public:
  explicit Shades(const PatchInput& input) {
    const bool stretch = input.range.select(-1, 0).eq(input.range.select(-1, 1)).all().item<bool>();
    low_ = input.values.min().item<float>();
    high_ = input.values.max().item<float>();
    if (!stretch) low_ = std::min(low_, 0.0f), high_ = std::max(high_, 1.0f);
  }
  at::Tensor operator()(const at::Tensor& values) const {
    const float stretch = high_ > low_ ? 255.0f / (high_ - low_) : 0.0f;
    return values.sub(low_).mul(stretch).round().clamp(0, 255).to(at::kByte).contiguous();
  }

 private:
  float low_, high_;
};

/// Leaves of one edge (the longest side).
struct EdgeGroup {
  int64_t leaves = 0;
  double pixels = 0;
};
using EdgeGroups = std::map<int64_t, EdgeGroup, std::greater<>>;

EdgeGroups groups_of(const at::Tensor& boxes) {
  const int64_t axes = boxes.size(-1) / 2, count = boxes.numel() / (2 * axes);
  EdgeGroups groups;
  const float* box = boxes.const_data_ptr<float>();
  for (int64_t leaf = 0; leaf < count; ++leaf, box += 2 * axes) {
    int64_t edge = 0;
    double pixels = 1;
    for (int64_t axis = 0; axis < axes; ++axis) {
      edge = std::max(edge, static_cast<int64_t>(box[axes + axis] - box[axis]));
      pixels *= box[axes + axis] - box[axis];
    }
    if (pixels == 0) continue;  // padding
    groups[edge].leaves += 1;
    groups[edge].pixels += pixels;
  }
  return groups;
}

}  // namespace

PatchLeaves leaves_of(const config::Recipe& recipe, const PatchInput& input, int64_t epoch,
                      std::optional<int64_t> sample) {
  const config::Model& model = recipe.model;
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  data::Batch batch;
  batch.image = input.image;
  batch.pixel_range = input.range;
  batch.sample_ids = at::full({1}, sample.value_or(0), at::kLong);
  batch.epoch = epoch;
  const nn::Draws draws{
      .seed = seed, .sample_ids = batch.sample_ids, .training = sample.has_value()};
  batch = models::LeafMaker(model).with_leaves(std::move(batch), draws);
  PatchLeaves leaves{.tokens = batch.leaf_tokens.contiguous(),
                     .boxes = batch.leaf_boxes.contiguous()};
  if (!is_mixed(model) && model.adaptive.trees == "per_channel") leaves.trees = input.image.size(1);
  leaves.importance =
      is_mixed(model) ? scores_of(model, batch, draws) : map_of(model, batch, leaves.trees, draws);
  return leaves;
}

patching::Picture draw(const config::Model& model, const PatchInput& input,
                       const PatchLeaves& leaves, int64_t slices) {
  const Shades shades(input);
  const int64_t channels = input.values.size(1) / leaves.trees;
  const int64_t length = leaves.boxes.size(1) / leaves.trees;
  std::vector<patching::Picture> pictures;
  for (int64_t tree = 0; tree < leaves.trees; ++tree) {
    const at::Tensor values = input.values.narrow(1, tree * channels, channels).contiguous();
    const at::Tensor boxes = leaves.boxes.narrow(1, tree * length, length).contiguous();
    const at::Tensor tokens = tokens_of(model, values, boxes).contiguous();
    const at::Tensor pasted = patching::paste(tokens, boxes, model.image_size, resample_of(model));
    const at::Tensor importance = leaves.importance.select(0, tree).contiguous();
    const at::Tensor image_bytes = shades(values), pasted_bytes = shades(pasted),
                     token_bytes = shades(tokens);
    pictures.push_back(patching::draw_leaves({.channels = channels,
                                              .sides = model.image_size,
                                              .bytes = span_of<uint8_t>(image_bytes),
                                              .importance = span_of<uint8_t>(importance),
                                              .pasted = span_of<uint8_t>(pasted_bytes),
                                              .boxes = span_of<float>(boxes),
                                              .tokens = span_of<uint8_t>(token_bytes),
                                              .patch_size = model.patch_size,
                                              .slices = slices}));
  }
  return patching::stacked(pictures);
}

std::string describe(const config::Model& model, const PatchLeaves& leaves) {
  const EdgeGroups groups = groups_of(leaves.boxes);
  const int64_t asked = leaves.boxes.size(1);
  int64_t count = 0;
  double pixels = 0;
  for (const auto& [edge, group] : groups) count += group.leaves, pixels += group.pixels;
  std::string edges;
  for (const auto& [edge, group] : groups)
    edges += fmt::format("{}{}: {} ({:.1f} % of the pixels)", edges.empty() ? "" : ", ", edge,
                         group.leaves, 100 * group.pixels / pixels);
  const auto marked = leaves.importance.ne(0).sum().item<int64_t>();
  const std::string trees = leaves.trees > 1 ? fmt::format(" in {} trees", leaves.trees) : "";
  return fmt::format("{} leaves of {} ({} padding){}, {} marks {} pixels of {}\nleaves by edge: {}",
                     count, asked, asked - count, trees, divided_by(model), marked,
                     leaves.importance.numel(), edges);
}

}  // namespace vitrail::app
