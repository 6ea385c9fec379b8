#pragma once
/// The last pass over a batch: the middle of what the slots left, mean and standard deviation,
/// erasing, mixing with the neighbour. Shared by the plain loop and the CUDA kernels.

#include "vitrail/kernels/augment_ops.h"

namespace vitrail::kernels {

/// How sample b is mixed with its neighbour b ^ 1: as the row of the even one of them says.
struct Mixing {
  AugmentMix kind = AugmentMix::none;
  int64_t partner = 0;
  float share = 1.0f;
  const int32_t* box = nullptr;
};
VT_HOST_DEVICE inline Mixing mixing_of(const AugmentBatch& batch, int64_t b) {
  const int64_t partner = b ^ 1;
  if (partner >= batch.batch) return {};
  const AugmentHeader& even = *row_of(batch, b & ~int64_t{1}).header;
  const AugmentHeader& odd = *row_of(batch, b | 1).header;
  if (even.mix == AugmentMix::none || odd.mix == AugmentMix::none) return {};
  return {even.mix, partner, even.share, even.mix_box};
}

/// `box` holds first and one past the last pixel of each axis.
VT_HOST_DEVICE inline bool is_within(const int32_t* box, const Place& place) {
  for (int a = 0; a < 3; ++a)
    if (place.at[a] < box[2 * a] || place.at[a] >= box[2 * a + 1]) return false;
  return true;
}

/// What the slots left of one sample.
struct LeftSample {
  AugmentRow row;
  const int32_t* sides;
  int32_t plane;  // pixels
  const float* image;
  const int64_t* mask;
  const float* values;
};
VT_HOST_DEVICE inline LeftSample left_of(const AugmentBatch& batch, int64_t b) {
  const AugmentRow row = row_of(batch, b);
  const AugmentHeader& header = *row.header;
  const int32_t* sides = header.steps == 0 ? header.in : row.slots[header.steps - 1].out;
  return {row,
          sides,
          count_of(sides),
          buffer_of(batch.image, b, header.steps),
          batch.mask.in ? buffer_of(batch.mask, b, header.geometric) : nullptr,
          batch.values.in ? buffer_of(batch.values, b, header.geometric) : nullptr};
}
VT_HOST_DEVICE inline int32_t cropped_from(const LeftSample& left, const Place& place) {
  const int32_t* crop = left.row.header->crop;
  return ((crop[0] + place.at[0]) * left.sides[1] + crop[1] + place.at[1]) * left.sides[2] +
         crop[2] + place.at[2];
}

/// All that the pixels of one sample have in common.
struct FinishJob {
  int64_t b;
  Mixing mixing;
  LeftSample own, partner;
};
VT_HOST_DEVICE inline FinishJob finish_job_of(const AugmentBatch& batch, int64_t b) {
  const Mixing mixing = mixing_of(batch, b);
  const LeftSample own = left_of(batch, b);
  return {b, mixing, own, mixing.kind == AugmentMix::none ? own : left_of(batch, mixing.partner)};
}

/// Pixel `place` (number p of `pixels`) of channel c, before mixing.
VT_HOST_DEVICE inline float finished_value(const LeftSample& left, int32_t c, const Place& place,
                                           int32_t from, int64_t p, int64_t pixels) {
  const AugmentHeader& header = *left.row.header;
  if (header.erase_kind != AugmentErase::none && is_within(header.erase, place))
    return header.erase_kind == AugmentErase::zero ? 0.0f
                                                   : noise_at(header, kEraseLayer, c * pixels + p);
  if (left.plane == 0) return 0.0f;  // the row of a place that holds no sample
  const float v = left.image[static_cast<int64_t>(c) * left.plane + from];
  return (v - left.row.mean[c]) / left.row.std[c];
}

VT_HOST_DEVICE inline float mixed(float share, float own, float other) {
  return product(share, own) + product(1.0f - share, other);
}

/// Everything of pixel p of a sample.
VT_HOST_DEVICE inline void finish_pixel(const AugmentBatch& batch, const FinishJob& job,
                                        int32_t p) {
  const Place place =
      place_of(p, static_cast<int32_t>(batch.target[1]), static_cast<int32_t>(batch.target[2]));
  const int64_t pixels = batch.target[0] * batch.target[1] * batch.target[2];
  const Mixing& mixing = job.mixing;
  const bool is_swapped = mixing.kind == AugmentMix::cutmix && is_within(mixing.box, place);
  const bool is_blended = mixing.kind == AugmentMix::mixup;
  const LeftSample& source = is_swapped ? job.partner : job.own;
  const int32_t from = cropped_from(source, place), other = cropped_from(job.partner, place);
  float* out = batch.image.out + job.b * batch.image.channels * pixels + p;
  for (int32_t c = 0; c < batch.image.channels; ++c, out += pixels) {
    float v = finished_value(source, c, place, from, p, pixels);
    if (is_blended)
      v = mixed(mixing.share, v, finished_value(job.partner, c, place, other, p, pixels));
    *out = v;
  }
  if (source.mask) batch.mask.out[job.b * pixels + p] = source.mask[from];
  for (int64_t v = 0; v < batch.values.channels && source.values; ++v) {
    float value = source.values[v * source.plane + from];
    if (is_blended)
      value = mixed(mixing.share, value, job.partner.values[v * job.partner.plane + other]);
    batch.values.out[(job.b * batch.values.channels + v) * pixels + p] = value;
  }
}

/// Class and numbers to be learnt of sample b.
VT_HOST_DEVICE inline void finish_label(const AugmentBatch& batch, int64_t b) {
  const Mixing mixing = mixing_of(batch, b);
  const int64_t partner = mixing.kind == AugmentMix::none ? b : mixing.partner;
  if (batch.label) {
    batch.label_other[b] = batch.label[partner];
    batch.label_share[b] = mixing.share;
  }
  for (int64_t v = 0; v < batch.vector_size; ++v) {
    const float own = batch.vectors[b * batch.vector_size + v];
    batch.vectors_out[b * batch.vector_size + v] =
        partner == b ? own
                     : mixed(mixing.share, own, batch.vectors[partner * batch.vector_size + v]);
  }
}

// -------------------------------------------------------------------------------------- boxes

/// Corners of a box along y and x: low y, high y, low x, high x, in pixels, edges included.
struct FlatBox {
  float low[2], high[2];
};

/// The hull of where an affine slot puts a box.
VT_HOST_DEVICE inline FlatBox affine_box(const AugmentSlot& slot, const FlatBox& box) {
  // Rows y and x of the matrix take a result's place to the source's; a box goes the other way.
  const float a = slot.matrix[5], b = slot.matrix[6], c = slot.matrix[9], d = slot.matrix[10];
  const float determinant = product(a, d) - product(b, c);
  FlatBox hull{{INFINITY, INFINITY}, {-INFINITY, -INFINITY}};
  for (int k = 0; k < 4; ++k) {
    // Pixel i reaches from i - 1/2 to i + 1/2 of the places that the matrix speaks of.
    const float y = (k & 2 ? box.high[0] : box.low[0]) - 0.5f - slot.matrix[7];
    const float x = (k & 1 ? box.high[1] : box.low[1]) - 0.5f - slot.matrix[11];
    const float to[2] = {(product(d, y) - product(b, x)) / determinant + 0.5f,
                         (product(a, x) - product(c, y)) / determinant + 0.5f};
    for (int i = 0; i < 2; ++i) {
      hull.low[i] = fminf(hull.low[i], to[i]);
      hull.high[i] = fmaxf(hull.high[i], to[i]);
    }
  }
  return hull;
}

VT_HOST_DEVICE inline FlatBox moved_box(const AugmentSlot& slot, const FlatBox& box) {
  if (slot.op == AugmentOp::affine) return affine_box(slot, box);
  FlatBox moved = box;
  for (int i = 0; i < 2; ++i) {
    if (slot.op == AugmentOp::window) {
      const auto origin = static_cast<float>(slot.box[1 + i]);
      const float scale = static_cast<float>(slot.out[1 + i]) / static_cast<float>(slot.box[4 + i]);
      moved.low[i] = product(box.low[i] - origin, scale);
      moved.high[i] = product(box.high[i] - origin, scale);
    } else {
      const AugmentAxis& map = slot.axis[1 + i];
      const int from = map.axis - 1;
      const auto start = static_cast<float>(map.start);
      const bool is_mirrored = map.step < 0;
      moved.low[i] = is_mirrored ? start + 1.0f - box.high[from] : box.low[from] - start;
      moved.high[i] = is_mirrored ? start + 1.0f - box.low[from] : box.high[from] - start;
    }
  }
  return moved;
}

/// Box m of sample b through all slots and the crop; cut at the edges of every result.
VT_HOST_DEVICE inline void finish_box(const AugmentBatch& batch, int64_t b, int64_t m) {
  int64_t& label = batch.box_classes[b * batch.max_boxes + m];
  if (label < 0) return;
  float* at = batch.boxes + (b * batch.max_boxes + m) * 4;
  const AugmentRow row = row_of(batch, b);
  FlatBox box{{at[1], at[0]}, {at[3], at[2]}};
  for (int32_t s = 0; s < row.header->steps; ++s) {
    const AugmentSlot& slot = row.slots[s];
    if (!is_geometric(slot.op)) continue;
    box = moved_box(slot, box);
    for (int i = 0; i < 2; ++i) {
      const auto side = static_cast<float>(slot.out[1 + i]);
      box.low[i] = fminf(fmaxf(box.low[i], 0.0f), side);
      box.high[i] = fminf(fmaxf(box.high[i], 0.0f), side);
    }
  }
  for (int i = 0; i < 2; ++i) {
    const auto crop = static_cast<float>(row.header->crop[1 + i]);
    const auto side = static_cast<float>(batch.target[1 + i]);
    box.low[i] = fminf(fmaxf(box.low[i] - crop, 0.0f), side);
    box.high[i] = fminf(fmaxf(box.high[i] - crop, 0.0f), side);
  }
  if (box.high[0] - box.low[0] < 1.0f || box.high[1] - box.low[1] < 1.0f) {
    label = -1;
    box = {};
  }
  at[0] = box.low[1], at[1] = box.low[0], at[2] = box.high[1], at[3] = box.high[0];
}

}  // namespace vitrail::kernels
