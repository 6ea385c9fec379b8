#include "vitrail/data/leaves.h"

#include <algorithm>

#include <ATen/ops/empty.h>

#include "vitrail/data/statistics.h"
#include "vitrail/data/transform.h"
#include "vitrail/patching/adaptive.h"

namespace vitrail::data {
namespace {

/// Row p of a tensor.
std::span<float> row(const at::Tensor& tensor, int64_t p) {
  const int64_t values = tensor.numel() / tensor.size(0);
  return {static_cast<float*>(tensor.mutable_data_ptr()) + p * values, static_cast<size_t>(values)};
}

}  // namespace

bool has_loader_leaves(const config::Model& model) {
  const config::Adaptive& adaptive = model.adaptive;
  return adaptive.fixed_length > 0 && model.mixed_resolution.num_tokens == 0 &&
         adaptive.trees == "shared" && !(adaptive.importance == "feature_based");
}

std::vector<float> pixel_range_of(const config::Source& source, const config::Model& model,
                                  bool raw) {
  const int64_t channels = channels_of(source, model);
  std::vector<float> range(static_cast<size_t>(2 * channels), 0.0f);
  if (source.normalize == "none") return range;
  const auto [mean, std] = normalize_values(source, channels);
  for (size_t c = 0; c < range.size() / 2; ++c) {
    range[2 * c] = raw ? 0.0f : static_cast<float>((0 - mean[c]) / std[c]);
    range[2 * c + 1] = raw ? 1.0f : static_cast<float>((1 - mean[c]) / std[c]);
  }
  return range;
}

at::Tensor pixel_ranges(const std::vector<float>& row, int64_t n) {
  at::Tensor ranges = at::empty({n, static_cast<int64_t>(row.size()) / 2, 2}, at::kFloat);
  float* out = ranges.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) out = std::copy(row.begin(), row.end(), out);
  return ranges;
}

LeafRows::LeafRows(const config::Model& model, bool training)
    : sides_(model.image_size), options_(patching::leaf_options(model)), training_(training) {}

void LeafRows::allocate(Batch& batch, int64_t n, int64_t channels, bool pin_memory) const {
  const auto axes = std::ssize(sides_);
  int64_t patch_pixels = 1;
  for (int64_t axis = 0; axis < axes; ++axis) patch_pixels *= options_.patch_size;
  const auto floats = at::TensorOptions().dtype(at::kFloat).pinned_memory(pin_memory);
  batch.leaf_tokens = at::empty({n, channels, options_.fixed_length, patch_pixels}, floats);
  batch.leaf_boxes = at::empty({n, options_.fixed_length, 2 * axes}, floats);
}

void LeafRows::place(std::span<const float> image, std::span<const float> range,
                     const AugmentPlace& at, const Batch& batch, int64_t p) const {
  const auto edges = training_ ? patching::training_edges(options_, at.seed, at.epoch, at.index)
                               : patching::EdgeOptions{};
  patching::patchify(image, batch.leaf_tokens.size(1), sides_, range, options_, edges,
                     row(batch.leaf_tokens, p), row(batch.leaf_boxes, p));
}

void LeafRows::pad(const Batch& batch, int64_t p) const {
  std::ranges::fill(row(batch.leaf_tokens, p), 0.0f);
  std::ranges::fill(row(batch.leaf_boxes, p), 0.0f);
}

}  // namespace vitrail::data
