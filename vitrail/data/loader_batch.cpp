#include "vitrail/data/loader_batch.h"

#include <algorithm>
#include <limits>

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
      leaves_(model, options.training),
      all_variables_(model.variables) {
  VT_REQUIRE(ConfigError, !leaves_.is_on() || list.plan_bytes(0) < 0,
             "[data] with model.adaptive the loader makes patches of finished images, but steps of "
             "an augment list are done on the device after it; use flip, flips, rot90, crop, shift "
             "and a leading resized_crop");
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
  if (!leaves_.is_on())
    batch.image = at::empty(joined({n, list_.channels(pending->source)}, sides), floats);
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
  if (leaves_.is_on())
    leaves_.allocate(batch, n, list_.channels(pending->source), pin_memory_);
  batch.sample_ids = at::empty({n}, numbers);
  batch.variables = list_.variables(pending->source);
  batch.epoch = at.epoch;
  batch.slot = order_.first_slot(at);
  pending->results.resize(static_cast<size_t>(n));
  return pending;
}

void BatchLayout::place(const ReadSample& sample, PendingBatch& pending, int64_t p) const {
  const Batch& batch = pending.batch;
  const LabelKind kind = list_.label_kind();
  Placed out;
  out.image = row<float>(batch.image, p);
  if (!leaves_.has_mosaics() && kind == LabelKind::masks) out.mask = row<int64_t>(batch.label, p);
  if (!leaves_.has_mosaics() && kind == LabelKind::images) out.values = row<float>(batch.label, p);
  out.boxes = row<float>(batch.boxes, p);
  out.box_classes = row<int64_t>(batch.box_classes, p);
  out.max_boxes = list_.max_boxes();
  out.plan = row<uint8_t>(batch.augment_plan, p);
  std::vector<float> image, values;
  std::vector<int64_t> mask;
  if (leaves_.is_on()) {
    const auto pixels = static_cast<size_t>(count(list_.staging_sides()));
    image.resize(pixels * static_cast<size_t>(batch.leaf_tokens.size(1)));
    out.image = image.data();
    if (leaves_.has_mosaics() && kind == LabelKind::masks) {
      mask.resize(pixels);
      out.mask = mask.data();
    }
    if (leaves_.has_mosaics() && kind == LabelKind::images) {
      values.resize(pixels * static_cast<size_t>(list_.values()));
      out.values = values.data();
    }
  }
  list_.place(sample, out, kind == LabelKind::classes ? row<int64_t>(batch.label, p) : nullptr,
              kind == LabelKind::values ? row<float>(batch.label, p) : nullptr);
  if (leaves_.is_on())
    leaves_.place({image, mask, values}, list_.byte_range(list_.source_of(sample.index)),
                  sample.place, batch, p);
  *row<int64_t>(batch.sample_ids, p) = sample.index;
}

void BatchLayout::pad(PendingBatch& pending, int64_t p) const {
  const Batch& batch = pending.batch;
  fill_row(batch.image, p, 0.0f);
  if (leaves_.is_on()) leaves_.pad(batch, p);
  if (batch.label.scalar_type() == at::kFloat)
    fill_row(batch.label, p, kNoValue);
  else
    fill_row(batch.label, p, int64_t{-1});
  fill_row(batch.boxes, p, 0.0f);
  fill_row(batch.box_classes, p, int64_t{-1});
  fill_row(batch.augment_plan, p, uint8_t{0});
  *row<int64_t>(batch.sample_ids, p) = -1;
}

void BatchLayout::keep_one_variable(PendingBatch& pending) const {
  if (!takes_turns_) return;
  Batch& batch = pending.batch;
  const std::vector<std::string>& names =
      batch.variables.empty() ? all_variables_ : batch.variables;
  const auto count = static_cast<int64_t>(names.size());
  if (count <= 1) return;
  const int64_t turn = (pending.at.epoch * order_.batches_per_epoch() + pending.at.batch) % count;
  if (leaves_.is_on()) {
    const at::Tensor channel = batch.leaf_tokens.narrow(1, turn, 1);
    batch.leaf_tokens =
        at::empty(channel.sizes(), channel.options().pinned_memory(pin_memory_)).copy_(channel);
  } else {
    keep_channel(batch, turn, pin_memory_);
  }
  batch.variables = {std::string(names[static_cast<size_t>(turn)])};
}

}  // namespace vitrail::data
