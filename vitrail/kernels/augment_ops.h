#pragma once
/// One pixel of one operation of augment.h, shared by the plain loop and the CUDA kernels.

#include "vitrail/kernels/augment_values.h"

namespace vitrail::kernels {

// Draws of the erased part; layers of slots are places in a list, far below.
constexpr uint16_t kEraseLayer = 0x7FFF;

/// A row of the plan, taken apart.
struct AugmentRow {
  const AugmentHeader* header;
  const AugmentSlot* slots;
  const float* mean;
  const float* std;
};
VT_HOST_DEVICE inline AugmentRow row_of(const AugmentBatch& batch, int64_t b) {
  const uint8_t* at = batch.plan + b * batch.row_bytes;
  const auto* slots = reinterpret_cast<const AugmentSlot*>(at + sizeof(AugmentHeader));
  const auto* mean = reinterpret_cast<const float*>(slots + batch.slots);
  return {reinterpret_cast<const AugmentHeader*>(at), slots, mean, mean + batch.image.channels};
}

/// The buffer that holds a part of sample b before `done` operations have been followed by another.
template <class T>
VT_HOST_DEVICE inline T* buffer_of(const AugmentBuffers<T>& part, int64_t b, int32_t done) {
  return (done % 2 == 0 ? part.in : part.other) + b * part.row;
}

/// One operation on the image of one sample.
struct AugmentJob {
  const AugmentHeader* header;
  const AugmentSlot* slot;
  const ChannelStatistics* statistics;
  const float* in;
  float* out;
  int32_t channels, in_pixels, out_pixels;
};
VT_HOST_DEVICE inline AugmentJob job_of(const AugmentBatch& batch, int64_t b, int32_t s) {
  const AugmentRow row = row_of(batch, b);
  const AugmentSlot& slot = row.slots[s];
  const auto* statistics = static_cast<const ChannelStatistics*>(batch.statistics);
  return {row.header,
          &slot,
          statistics + b * batch.image.channels,
          buffer_of(batch.image, b, s),
          buffer_of(batch.image, b, s + 1),
          static_cast<int32_t>(batch.image.channels),
          count_of(slot.in),
          count_of(slot.out)};
}

/// Every channel of result pixel p from the same channel alone: change(value, channel).
template <class Change>
VT_HOST_DEVICE inline void each_channel(const AugmentJob& job, int32_t p, const Change& change) {
  for (int32_t c = 0; c < job.channels; ++c) {
    const int64_t i = static_cast<int64_t>(c) * job.in_pixels + p;
    job.out[i] = change(job.in[i], c);
  }
}
/// The same for operations that look at other pixels of the channel: make(channel's first value).
template <class Make>
VT_HOST_DEVICE inline void each_plane(const AugmentJob& job, int32_t p, const Make& make) {
  for (int32_t c = 0; c < job.channels; ++c)
    job.out[static_cast<int64_t>(c) * job.out_pixels + p] =
        make(job.in + static_cast<int64_t>(c) * job.in_pixels);
}

VT_HOST_DEVICE inline void move_pixel(const AugmentJob& job, int32_t p) {
  const AugmentSlot& slot = *job.slot;
  if (slot.op == AugmentOp::window) {
    each_plane(job, p, [&](const float* in) { return resized(slot, in, p); });
  } else if (slot.op == AugmentOp::affine && slot.flag == 0) {
    const Corners corners = corners_of(slot, p);
    each_plane(job, p, [&](const float* in) { return interpolated(corners, in, 0.0f); });
  } else {
    const int32_t from =
        slot.op == AugmentOp::gather ? gathered_from(slot, p) : nearest_from(slot, p);
    each_plane(job, p, [&](const float* in) { return from < 0 ? 0.0f : in[from]; });
  }
}

/// Operations on the three channels of a pixel together; others leave images of other channel
/// counts as they are.
VT_HOST_DEVICE inline void colour_pixel(const AugmentJob& job, int32_t p) {
  const AugmentSlot& slot = *job.slot;
  if (job.channels != 3) return each_channel(job, p, [](float v, int32_t) { return v; });
  const int64_t n = job.in_pixels;
  float r = job.in[p], g = job.in[n + p], b = job.in[2 * n + p];
  if (slot.op == AugmentOp::hue) {
    turn_hue(slot.value[0], r, g, b);
  } else {
    const float grey = grey_of(r, g, b);
    if (slot.op == AugmentOp::gray) {
      r = g = b = grey;
    } else {
      r = blend(slot.value[0], r, grey);
      g = blend(slot.value[0], g, grey);
      b = blend(slot.value[0], b, grey);
    }
  }
  job.out[p] = r;
  job.out[n + p] = g;
  job.out[2 * n + p] = b;
}

VT_HOST_DEVICE inline float noise_at(const AugmentHeader& header, uint16_t layer, int64_t element) {
  return core::normal({header.seed, core::Stream::noise, header.epoch, layer},
                      static_cast<uint64_t>(header.index), static_cast<uint32_t>(element));
}

/// Result pixel p, all channels. A case each, so that a loop over p around it holds one.
VT_HOST_DEVICE inline void augment_pixel(const AugmentJob& job, int32_t p) {
  const AugmentSlot& slot = *job.slot;
  const float x = slot.value[0];
  switch (slot.op) {
    case AugmentOp::gather:
    case AugmentOp::affine:
    case AugmentOp::window:
      return move_pixel(job, p);
    case AugmentOp::saturation:
    case AugmentOp::hue:
    case AugmentOp::gray:
      return colour_pixel(job, p);
    case AugmentOp::blur:
      return each_plane(job, p, [&](const float* in) { return blurred(slot, in, p); });
    case AugmentOp::sharpness:
      return each_plane(job, p,
                        [&](const float* in) { return blend(x, in[p], smoothed(slot, in, p)); });
    case AugmentOp::brightness:
      return each_channel(job, p, [&](float v, int32_t) { return blend(x, v, 0.0f); });
    case AugmentOp::contrast:
      return each_channel(job, p, [&](float v, int32_t c) {
        return blend(x, v, job.statistics[job.channels == 3 ? 0 : c].mean);
      });
    case AugmentOp::autocontrast:
    case AugmentOp::equalize:
      return each_channel(job, p,
                          [&](float v, int32_t c) { return job.statistics[c].table[byte_of(v)]; });
    case AugmentOp::posterize:
      return each_channel(job, p, [&](float v, int32_t) {
        return unit_of(byte_of(v) & ~((1 << (8 - slot.number)) - 1));
      });
    case AugmentOp::solarize:
      return each_channel(job, p, [&](float v, int32_t) {
        const int32_t byte = byte_of(v);
        return unit_of(static_cast<float>(byte) >= x ? 255 - byte : byte);
      });
    case AugmentOp::invert:
      return each_channel(job, p, [](float v, int32_t) { return 1.0f - v; });
    case AugmentOp::intensity:
      return each_channel(job, p, [&](float v, int32_t) { return product(v, x) + slot.value[1]; });
    case AugmentOp::gamma:
      return each_channel(job, p, [&](float v, int32_t) { return powf(fmaxf(v, 0.0f), x); });
    case AugmentOp::noise:
      return each_channel(job, p, [&](float v, int32_t c) {
        const int64_t element = static_cast<int64_t>(c) * job.in_pixels + p;
        return v + product(x, noise_at(*job.header, static_cast<uint16_t>(slot.flag), element));
      });
    case AugmentOp::none:
      return each_channel(job, p, [](float v, int32_t) { return v; });
  }
}

}  // namespace vitrail::kernels
