#include "vitrail/data/leaves.h"

#include <algorithm>
#include <limits>

#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/resample.h"

namespace vitrail::data {
namespace {

/// Row p of a tensor.
template <class T>
std::span<T> row(const at::Tensor& tensor, int64_t p) {
  const int64_t values = tensor.numel() / tensor.size(0);
  return {static_cast<T*>(tensor.mutable_data_ptr()) + p * values, static_cast<size_t>(values)};
}

/// Leaves without extent get `nothing` instead of zeros.
void mark_padding(std::span<const float> boxes, int64_t axes, float nothing,
                  std::span<float> leaf_values) {
  const auto axes_ = static_cast<size_t>(axes);
  const size_t count = boxes.size() / (2 * axes_), pixels = leaf_values.size() / count;
  for (size_t leaf = 0; leaf < count; ++leaf) {
    const float* box = boxes.data() + leaf * 2 * axes_;
    bool is_real = true;
    for (size_t axis = 0; axis < axes_; ++axis) is_real = is_real && box[axes_ + axis] > box[axis];
    if (!is_real)
      std::fill_n(leaf_values.begin() + static_cast<std::ptrdiff_t>(leaf * pixels), pixels,
                  nothing);
  }
}

}  // namespace

LeafRows::LeafRows(const config::Model& model, bool training)
    : sides_(model.image_size), training_(training) {
  options_.fixed_length = model.adaptive.fixed_length;
  options_.patch_size = model.patch_size;
  if (!is_on() || !(model.kind == "sap")) return;
  try {
    mosaic_ =
        patching::mosaic_sides(options_.fixed_length, std::ssize(sides_), options_.patch_size);
  } catch (const core::Error& error) {
    core::fail<core::ConfigError>("[data] model.adaptive.fixed_length: {}", error.what());
  }
}

void LeafRows::allocate(Batch& batch, int64_t n, int64_t channels, bool pin_memory) const {
  const auto axes = std::ssize(sides_);
  int64_t patch_pixels = 1;
  for (int64_t axis = 0; axis < axes; ++axis) patch_pixels *= options_.patch_size;
  const auto floats = at::TensorOptions().dtype(at::kFloat).pinned_memory(pin_memory);
  batch.leaf_tokens = at::empty({n, channels, options_.fixed_length, patch_pixels}, floats);
  batch.leaf_boxes = at::empty({n, options_.fixed_length, 2 * axes}, floats);
  if (!has_mosaics() || !batch.label.defined() || batch.label.dim() <= axes) return;
  std::vector<int64_t> shape = batch.label.sizes().vec();
  std::copy(mosaic_.begin(), mosaic_.end(), shape.end() - axes);
  batch.label = at::empty(shape, floats.dtype(batch.label.scalar_type()));
}

void LeafRows::place(const Staged& staged, const patching::ByteRange& range, const AugmentPlace& at,
                     const Batch& batch, int64_t p) const {
  patching::AdaptiveOptions options = options_;
  options.range = range;
  const auto edges =
      training_ ? patching::drawn_edges(at.seed, at.epoch, at.index) : patching::EdgeOptions{};
  const std::span<float> boxes = row<float>(batch.leaf_boxes, p);
  patching::patchify(staged.image, batch.leaf_tokens.size(1), sides_, options, edges,
                     row<float>(batch.leaf_tokens, p), boxes);
  if (!has_mosaics()) return;
  const auto axes = std::ssize(sides_);
  if (!staged.mask.empty()) {
    const std::span<int64_t> mosaic = row<int64_t>(batch.label, p);
    std::vector<int64_t> leaves(mosaic.size());
    patching::serialise_labels(staged.mask, sides_, boxes, options.patch_size, leaves);
    patching::to_mosaic<int64_t>(leaves, axes, options.patch_size, mosaic);
  }
  if (!staged.values.empty()) {
    const std::span<float> mosaics = row<float>(batch.label, p);
    const int64_t channels = batch.label.size(1);
    const size_t values = mosaics.size() / static_cast<size_t>(channels);
    std::vector<float> leaves(mosaics.size());
    patching::serialise(staged.values, channels, sides_, boxes, options.patch_size, leaves);
    for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
      const std::span<float> part = std::span(leaves).subspan(c * values, values);
      mark_padding(boxes, axes, std::numeric_limits<float>::quiet_NaN(), part);
      patching::to_mosaic<float>(part, axes, options.patch_size,
                                 mosaics.subspan(c * values, values));
    }
  }
}

void LeafRows::pad(const Batch& batch, int64_t p) const {
  std::ranges::fill(row<float>(batch.leaf_tokens, p), 0.0f);
  std::ranges::fill(row<float>(batch.leaf_boxes, p), 0.0f);
}

}  // namespace vitrail::data
