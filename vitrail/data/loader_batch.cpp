#include "vitrail/data/loader_batch.h"

#include <algorithm>
#include <limits>
#include <span>

#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/data/augment_batch.h"

namespace vitrail::data {
namespace {

constexpr float kNoValue = std::numeric_limits<float>::quiet_NaN();

/// Row p of a tensor; null when there is no tensor.
template <class T>
T* row(const at::Tensor& tensor, int64_t p) {
  if (!tensor.defined()) return nullptr;
  return static_cast<T*>(tensor.mutable_data_ptr()) + p * (tensor.numel() / tensor.size(0));
}

template <class T>
void fill_row(const at::Tensor& tensor, int64_t p, T value) {
  if (!tensor.defined() || tensor.numel() == 0) return;
  std::fill_n(row<T>(tensor, p), tensor.numel() / tensor.size(0), value);
}

std::vector<int64_t> joined(std::vector<int64_t> front, const std::vector<int64_t>& back) {
  front.insert(front.end(), back.begin(), back.end());
  return front;
}

}  // namespace

BatchLayout::BatchLayout(const SourceList& list, const Order& order, const config::Model& model,
                         const LoaderOptions& options)
    : list_(list),
      order_(order),
      pin_memory_(options.pin_memory),
      takes_turns_(model.single_channel),
      has_ranges_(model.num_leaves() > 0),
      all_variables_(model.variables) {
  if (!has_loader_leaves(model) || options.patching == Patching::step) return;
  const bool has_plan = list.plan_bytes(0) >= 0;
  VT_REQUIRE(ConfigError, !has_plan || options.patching == Patching::automatic,
             "[data] data.patching loader makes leaves of finished images, but steps of an augment "
             "list are done on the device after it; set data.patching to auto or step, or use only "
             "flip, flips, rot90, crop, shift and a leading resized_crop");
  if (!has_plan) leaves_.emplace(model, options.training);
}

std::unique_ptr<PendingBatch> BatchLayout::allocate(LoaderState at) const {
  auto pending = std::make_unique<PendingBatch>();
  pending->at = at;
  pending->source = std::max<int64_t>(order_.source(at), 0);
  const int64_t n = order_.places(at);
  const std::vector<int64_t>& sides = list_.staging_sides();
  const auto options = at::TensorOptions().pinned_memory(pin_memory_);
  const auto floats = options.dtype(at::kFloat), numbers = options.dtype(at::kLong);
  Batch& batch = pending->batch;
  const int64_t channels = list_.channels(pending->source);
  batch.image = at::empty(joined({n, channels}, sides), floats);
  switch (list_.label_kind()) {
    case LabelKind::classes:
      batch.label = at::empty({n}, numbers);
      break;
    case LabelKind::masks:
      batch.label = at::empty(joined({n}, sides), numbers);
      break;
    case LabelKind::values:
      batch.label = at::empty({n, list_.values()}, floats);
      break;
    case LabelKind::images:
      batch.label = at::empty(joined({n, list_.values()}, sides), floats);
      break;
  }
  if (const int64_t boxes = list_.max_boxes(); boxes > 0) {
    batch.boxes = at::empty({n, boxes, 4}, floats);
    batch.box_classes = at::empty({n, boxes}, numbers);
  }
  if (const int64_t bytes = list_.plan_bytes(pending->source); bytes >= 0)
    batch.augment_plan = at::empty({n, bytes}, options.dtype(at::kByte));
  if (has_ranges_) batch.pixel_range = at::empty({n, channels, 2}, floats);
  batch.sample_ids = at::empty({n}, numbers);
  batch.variables = list_.variables(pending->source);
  batch.epoch = at.epoch;
  batch.slot = order_.first_slot(at);
  if (leaves_) leaves_->allocate(batch, n, turn(*pending) < 0 ? channels : 1, pin_memory_);
  pending->results.resize(static_cast<size_t>(n));
  return pending;
}

void BatchLayout::place(const ReadSample& sample, PendingBatch& pending, int64_t p) const {
  const Batch& batch = pending.batch;
  const LabelKind kind = list_.label_kind();
  Placed out;
  out.image = row<float>(batch.image, p);
  if (kind == LabelKind::masks) out.mask = row<int64_t>(batch.label, p);
  if (kind == LabelKind::images) out.values = row<float>(batch.label, p);
  out.boxes = row<float>(batch.boxes, p);
  out.box_classes = row<int64_t>(batch.box_classes, p);
  out.max_boxes = list_.max_boxes();
  out.plan = row<uint8_t>(batch.augment_plan, p);
  list_.place(sample, out, kind == LabelKind::classes ? row<int64_t>(batch.label, p) : nullptr,
              kind == LabelKind::values ? row<float>(batch.label, p) : nullptr);
  if (has_ranges_)
    std::ranges::copy(list_.pixel_range(sample.source), row<float>(batch.pixel_range, p));
  if (leaves_) place_leaves(sample, pending, p);
  *row<int64_t>(batch.sample_ids, p) = sample.index;
}

/// Of the channels that the model will see. The draws are of the batch's epoch, which is all that a model
/// that makes leaves itself knows; with mixing by batch or rank the sample's own differs.
void BatchLayout::place_leaves(const ReadSample& sample, const PendingBatch& pending,
                               int64_t p) const {
  const Batch& batch = pending.batch;
  const int64_t first = std::max<int64_t>(turn(pending), 0);
  const auto channels = static_cast<size_t>(batch.leaf_tokens.size(1));
  const auto pixels = static_cast<size_t>(count(list_.staging_sides()));
  const std::span image(row<float>(batch.image, p) + first * static_cast<int64_t>(pixels),
                        channels * pixels);
  const std::span range(row<float>(batch.pixel_range, p) + 2 * first, 2 * channels);
  try {
    leaves_->place(image, range, {sample.place.seed, batch.epoch, sample.index}, batch, p);
  } catch (const core::Error& error) {
    core::fail<core::DataError>("[data] {}: {}", sample.info.path, error.what());
  }
}

void BatchLayout::pad(PendingBatch& pending, int64_t p) const {
  const Batch& batch = pending.batch;
  fill_row(batch.image, p, 0.0f);
  fill_row(batch.pixel_range, p, 0.0f);
  if (leaves_) leaves_->pad(batch, p);
  if (batch.label.scalar_type() == at::kFloat)
    fill_row(batch.label, p, kNoValue);
  else
    fill_row(batch.label, p, int64_t{-1});
  fill_row(batch.boxes, p, 0.0f);
  fill_row(batch.box_classes, p, int64_t{-1});
  fill_row(batch.augment_plan, p, uint8_t{0});
  *row<int64_t>(batch.sample_ids, p) = -1;
}

int64_t BatchLayout::turn(const PendingBatch& pending) const {
  if (!takes_turns_) return -1;
  const std::vector<std::string>& names = list_.variables(pending.source);
  const auto count = std::ssize(names.empty() ? all_variables_ : names);
  if (count <= 1) return -1;
  return (pending.at.epoch * order_.batches_per_epoch() + pending.at.batch) % count;
}

void BatchLayout::keep_one_variable(PendingBatch& pending) const {
  const int64_t kept = turn(pending);
  if (kept < 0) return;
  Batch& batch = pending.batch;
  const std::vector<std::string>& names =
      batch.variables.empty() ? all_variables_ : batch.variables;
  keep_channel(batch, kept, pin_memory_);
  if (has_ranges_) {
    const at::Tensor range = batch.pixel_range.narrow(1, kept, 1);
    batch.pixel_range =
        at::empty(range.sizes(), range.options().pinned_memory(pin_memory_)).copy_(range);
  }
  batch.variables = {std::string(names[static_cast<size_t>(kept)])};
}

}  // namespace vitrail::data
