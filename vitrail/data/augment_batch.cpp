#include "vitrail/data/augment_batch.h"

#include <algorithm>
#include <limits>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "vitrail/core/error.h"
#include "vitrail/data/augment_plan.h"
#include "vitrail/kernels/augment.h"

namespace vitrail::data {
namespace {

using kernels::AugmentBatch;
using kernels::AugmentBuffers;
using kernels::AugmentHeader;
using kernels::AugmentMix;

std::vector<int64_t> joined(std::vector<int64_t> front, const std::vector<int64_t>& back) {
  front.insert(front.end(), back.begin(), back.end());
  return front;
}

int64_t slots_in(int64_t row_bytes, int64_t channels) {
  const int64_t slots =
      (row_bytes - plan_bytes(0, channels)) / static_cast<int64_t>(sizeof(kernels::AugmentSlot));
  VT_CHECK(slots >= 0 && plan_bytes(slots, channels) == row_bytes,
           "[data] a plan of {} bytes a sample does not fit {} channels", row_bytes, channels);
  return slots;
}

/// A part of the batch with its second buffer and result; the tensors live as long as this.
template <class T>
struct Part {
  at::Tensor in, other, out;

  /// `staged` is [B, front..., staging sides].
  AugmentBuffers<T> open(const at::Tensor& staged, const std::vector<int64_t>& front,
                         const std::vector<int64_t>& sides, bool needs_other) {
    in = staged.contiguous();
    if (needs_other) other = at::empty_like(in);
    out = at::empty(joined(front, sides), in.options().pinned_memory(false));
    const int64_t row = in.numel() / in.size(0);
    return {static_cast<T*>(in.mutable_data_ptr()),
            needs_other ? static_cast<T*>(other.mutable_data_ptr()) : nullptr,
            static_cast<T*>(out.mutable_data_ptr()), front.size() > 1 ? front[1] : 1, row};
  }
};

/// Whether any pair is mixed; only known on the host without waiting for the device.
bool may_mix(const Batch& batch) {
  if (!batch.augment_plan.is_cpu()) return true;
  const auto* rows = batch.augment_plan.const_data_ptr<uint8_t>();
  for (int64_t b = 0; b < batch.augment_plan.size(0); ++b)
    if (reinterpret_cast<const AugmentHeader*>(rows + b * batch.augment_plan.size(1))->mix !=
        AugmentMix::none)
      return true;
  return false;
}

class Augmenter {
 public:
  Augmenter(Batch& batch, const std::vector<int64_t>& sides) : batch_(batch), sides_(sides) {
    check();
    batch_.augment_plan = batch_.augment_plan.contiguous();
    job_.plan = batch_.augment_plan.const_data_ptr<uint8_t>();
    job_.row_bytes = batch_.augment_plan.size(1);
    job_.batch = batch_.image.size(0);
    const int64_t channels = batch_.image.size(1);
    job_.slots = slots_in(job_.row_bytes, channels);
    for (size_t axis = 0; axis < sides.size(); ++axis)
      job_.target[3 - sides.size() + axis] = sides[axis];
    job_.image = image_.open(batch_.image, {job_.batch, channels}, sides_, job_.slots > 0);
    if (job_.slots > 0) {
      const int64_t bytes = kernels::augment_statistics_bytes(job_.batch, channels);
      statistics_ = at::empty({bytes}, batch_.augment_plan.options().pinned_memory(false));
      job_.statistics = statistics_.mutable_data_ptr();
    }
    open_labels();
    open_boxes();
  }

  void run() {
    const at::Device device = batch_.image.device();
    if (device.is_cpu()) {
      kernels::augment_cpu(job_, at::get_num_threads());
      return;
    }
    const c10::DeviceGuard guard(device);
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
    kernels::augment(job_, stream.native_handle());
  }

  void finish() {
    batch_.image = image_.out;
    if (mask_.out.defined()) batch_.label = mask_.out;
    if (values_.out.defined()) batch_.label = values_.out;
    if (vectors_.defined()) batch_.label = vectors_;
    batch_.augment_plan = at::Tensor();
  }

 private:
  void check() const {
    const auto dimensions = static_cast<int64_t>(sides_.size());
    const at::Tensor& plan = batch_.augment_plan;
    const bool fits = (dimensions == 2 || dimensions == 3) && batch_.image.defined() &&
                      batch_.image.dim() == dimensions + 2 &&
                      batch_.image.scalar_type() == at::kFloat && plan.dim() == 2 &&
                      plan.scalar_type() == at::kByte && plan.size(0) == batch_.image.size(0) &&
                      plan.device() == batch_.image.device();
    VT_CHECK(fits,
             "[data] an augmentation plan must have a row for each of the batch's float images of "
             "{} sides, on the same device",
             dimensions);
    VT_CHECK(batch_.image.numel() / std::max<int64_t>(batch_.image.size(0), 1) <
                 std::numeric_limits<int32_t>::max(),
             "[data] a sample that is augmented must have fewer than 2^31 values");
  }

  void open_labels() {
    const at::Tensor& label = batch_.label;
    if (!label.defined()) return;
    if (label.scalar_type() == at::kFloat) {
      if (label.dim() > 2) {
        job_.values = values_.open(label, {job_.batch, label.size(1)}, sides_, job_.slots > 0);
        return;
      }
      batch_.label = label.contiguous();
      vectors_ = at::empty_like(batch_.label);
      job_.vectors = batch_.label.mutable_data_ptr<float>();
      job_.vectors_out = vectors_.mutable_data_ptr<float>();
      job_.vector_size = batch_.label.numel() / std::max<int64_t>(job_.batch, 1);
    } else if (label.dim() > 1) {
      job_.mask = mask_.open(label, {job_.batch}, sides_, job_.slots > 0);
    } else if (may_mix(batch_)) {
      batch_.label = label.contiguous();
      batch_.label_other = at::empty_like(batch_.label);
      batch_.label_share = at::empty({job_.batch}, batch_.image.options().pinned_memory(false));
      job_.label = batch_.label.const_data_ptr<int64_t>();
      job_.label_other = batch_.label_other.mutable_data_ptr<int64_t>();
      job_.label_share = batch_.label_share.mutable_data_ptr<float>();
    }
  }

  void open_boxes() {
    if (!batch_.boxes.defined()) return;
    batch_.boxes = batch_.boxes.contiguous();
    batch_.box_classes = batch_.box_classes.contiguous();
    job_.boxes = batch_.boxes.mutable_data_ptr<float>();
    job_.box_classes = batch_.box_classes.mutable_data_ptr<int64_t>();
    job_.max_boxes = batch_.boxes.size(1);
  }

  Batch& batch_;
  const std::vector<int64_t>& sides_;
  AugmentBatch job_;
  Part<float> image_, values_;
  Part<int64_t> mask_;
  at::Tensor vectors_, statistics_;
};

}  // namespace

Batch augmented(Batch batch, const std::vector<int64_t>& image_size) {
  if (!batch.augment_plan.defined()) return batch;
  Augmenter augmenter(batch, image_size);
  augmenter.run();
  augmenter.finish();
  return batch;
}

void keep_channel(Batch& batch, int64_t channel, bool pin_memory) {
  const at::Tensor image = batch.image.contiguous();
  const int64_t n = image.size(0), channels = image.size(1);
  std::vector<int64_t> shape = image.sizes().vec();
  shape[1] = 1;
  batch.image = at::empty(shape, image.options().pinned_memory(pin_memory));
  const int64_t plane = image.numel() / std::max<int64_t>(n * channels, 1);
  const float* from = image.const_data_ptr<float>();
  float* to = batch.image.mutable_data_ptr<float>();
  if (!batch.augment_plan.defined()) {
    for (int64_t b = 0; b < n; ++b)
      std::copy_n(from + (b * channels + channel) * plane, plane, to + b * plane);
    return;
  }
  const at::Tensor plan = batch.augment_plan.contiguous();
  const int64_t slots = slots_in(plan.size(1), channels), bytes = plan_bytes(slots, 1);
  batch.augment_plan = at::empty({n, bytes}, plan.options().pinned_memory(pin_memory));
  const int64_t numbers = static_cast<int64_t>(sizeof(AugmentHeader)) +
                          slots * static_cast<int64_t>(sizeof(kernels::AugmentSlot));
  for (int64_t b = 0; b < n; ++b) {
    const uint8_t* row = plan.const_data_ptr<uint8_t>() + b * plan.size(1);
    uint8_t* kept = batch.augment_plan.mutable_data_ptr<uint8_t>() + b * bytes;
    std::fill_n(std::copy_n(row, numbers, kept), bytes - numbers, uint8_t{0});
    const auto* scale = reinterpret_cast<const float*>(row + numbers);
    auto* kept_scale = reinterpret_cast<float*>(kept + numbers);
    kept_scale[0] = scale[channel];
    kept_scale[1] = scale[channels + channel];
    // A sample smaller than the staging sides lies densely at the start of its row.
    const int32_t* in = reinterpret_cast<const AugmentHeader*>(row)->in;
    const int64_t own = static_cast<int64_t>(in[0]) * in[1] * in[2];
    std::copy_n(from + b * channels * plane + channel * own, own, to + b * plane);
  }
}

}  // namespace vitrail::data
