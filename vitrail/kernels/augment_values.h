#pragma once
/// Values of pixels under the operations of augment.h that do not move them, and the statistics of a
/// channel that some of them need.

#include "vitrail/kernels/augment_geometry.h"

namespace vitrail::kernels {

VT_HOST_DEVICE inline float clamp_unit(float v) { return fminf(fmaxf(v, 0.0f), 1.0f); }
VT_HOST_DEVICE inline float blend(float factor, float a, float b) {
  return clamp_unit(product(factor, a) + product(1.0f - factor, b));
}
VT_HOST_DEVICE inline float grey_of(float r, float g, float b) {
  return product(0.2989f, r) + product(0.587f, g) + product(0.114f, b);
}
/// The byte that stands for a value of [0, 1].
VT_HOST_DEVICE inline int32_t byte_of(float v) {
  return static_cast<int32_t>(rintf(product(clamp_unit(v), 255.0f)));
}
VT_HOST_DEVICE inline float unit_of(int32_t byte) { return static_cast<float>(byte) / 255.0f; }

/// Turns the hue of an RGB pixel by `turn` of a full circle; torchvision's arithmetic.
VT_HOST_DEVICE inline void turn_hue(float turn, float& r, float& g, float& b) {
  const float most = fmaxf(fmaxf(r, g), b), least = fminf(fminf(r, g), b);
  const float range = most - least;
  const float divisor = range == 0.0f ? 1.0f : range;
  const float saturation = range / (range == 0.0f ? 1.0f : most);
  const float rc = (most - r) / divisor, gc = (most - g) / divisor, bc = (most - b) / divisor;
  float hue = most == r ? bc - gc : most == g ? 2.0f + rc - bc : 4.0f + gc - rc;
  hue = hue / 6.0f + 1.0f;
  hue -= floorf(hue);
  hue += turn;
  hue -= floorf(hue);
  const float sixth = product(hue, 6.0f), sector = floorf(sixth), f = sixth - sector;
  const float p = clamp_unit(product(most, 1.0f - saturation));
  const float q = clamp_unit(product(most, 1.0f - product(saturation, f)));
  const float t = clamp_unit(product(most, 1.0f - product(saturation, 1.0f - f)));
  switch (static_cast<int32_t>(sector) % 6) {
    case 0:
      r = most, g = t, b = p;
      break;
    case 1:
      r = q, g = most, b = p;
      break;
    case 2:
      r = p, g = most, b = t;
      break;
    case 3:
      r = p, g = q, b = most;
      break;
    case 4:
      r = t, g = p, b = most;
      break;
    default:
      r = most, g = p, b = q;
      break;
  }
}

/// Mean of the 3 x 3 pixels around one of the last two axes, the middle counting five times; the
/// pixel itself at the edge.
VT_HOST_DEVICE inline float smoothed(const AugmentSlot& slot, const float* in, int32_t p) {
  const Place place = place_of(p, slot.in[1], slot.in[2]);
  const int32_t y = place.at[1], x = place.at[2], columns = slot.in[2];
  if (y == 0 || x == 0 || y + 1 == slot.in[1] || x + 1 == columns) return in[p];
  float sum = 0.0f;
  for (int32_t dy = -1; dy <= 1; ++dy)
    for (int32_t dx = -1; dx <= 1; ++dx)
      sum += product(in[p + dy * columns + dx], dy == 0 && dx == 0 ? 5.0f / 13.0f : 1.0f / 13.0f);
  return sum;
}

/// A place of an axis mirrored at its ends as often as it takes.
VT_HOST_DEVICE inline int32_t reflected(int32_t i, int32_t side) {
  if (side == 1) return 0;
  const int32_t period = 2 * (side - 1);
  i = i < 0 ? -i : i;
  i %= period;
  return i < side ? i : period - i;
}

VT_HOST_DEVICE inline float blurred(const AugmentSlot& slot, const float* in, int32_t p) {
  const Place place = place_of(p, slot.in[1], slot.in[2]);
  const int axis = slot.flag;
  const int32_t stride = axis == 2 ? 1 : axis == 1 ? slot.in[2] : slot.in[1] * slot.in[2];
  const int32_t i = place.at[axis], side = slot.in[axis];
  float sum = product(slot.weight[0], in[p]);
  for (int32_t k = 1; k <= slot.number; ++k)
    sum += product(slot.weight[k], in[p + (reflected(i - k, side) - i) * stride] +
                                       in[p + (reflected(i + k, side) - i) * stride]);
  return sum;
}

/// Statistics of one channel of one sample.
struct ChannelStatistics {
  uint32_t histogram[256];  // of bytes
  float table[256];         // result of every byte
  int64_t sum;              // of greys (of the channel itself unless there are 3), times 2^16
  float mean;
  float unused;
};

// A sum of integers does not depend on the order.
constexpr float kSumScale = 65536.0f;
VT_HOST_DEVICE inline int64_t summand(float v) {
  return static_cast<int64_t>(rintf(product(v, kSumScale)));
}
VT_HOST_DEVICE inline float mean_of(int64_t sum, int32_t pixels) {
  return static_cast<float>(static_cast<double>(sum) /
                            (static_cast<double>(pixels) * static_cast<double>(kSumScale)));
}

/// What the table of a channel follows from.
struct Levels {
  int32_t least, most;
  uint32_t step;  // equalize: pixels per level
};
VT_HOST_DEVICE inline Levels levels_of(const uint32_t* histogram, int32_t pixels) {
  Levels levels{0, 255, 0};
  while (levels.least < 255 && histogram[levels.least] == 0) ++levels.least;
  while (levels.most > 0 && histogram[levels.most] == 0) --levels.most;
  levels.step = (static_cast<uint32_t>(pixels) - histogram[levels.most]) / 255u;
  return levels;
}
/// `before`: pixels of lower bytes.
VT_HOST_DEVICE inline float table_value(AugmentOp op, const Levels& levels, int32_t byte,
                                        uint32_t before) {
  if (op == AugmentOp::autocontrast) {
    if (levels.most <= levels.least) return unit_of(byte);
    const float scale = 255.0f / static_cast<float>(levels.most - levels.least);
    const float stretched = product(static_cast<float>(byte - levels.least), scale);
    return unit_of(static_cast<int32_t>(fminf(fmaxf(stretched, 0.0f), 255.0f)));
  }
  if (levels.step == 0) return unit_of(byte);
  const uint32_t level = byte == 0 ? 0 : (before + levels.step / 2) / levels.step;
  return unit_of(static_cast<int32_t>(level < 255 ? level : 255));
}

}  // namespace vitrail::kernels
