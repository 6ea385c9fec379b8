#pragma once
/// What one thread of a GPU adds up for blur_scores, and the arithmetic that the CPU shares with it.
///
/// Order    A patch is cut into pieces, a column of up to kStripRows rows each, numbered row-major. A piece is summed
///          channel after channel from the top down; lane i adds pieces i, i + lanes, ...; then the upper half of the
///          lanes is added to the lower half until one is left.

#include <cfloat>
#include <cmath>

#include "vitrail/patching/blur_scores.h"
#include "vitrail/patching/edges_math.h"  // rounded_product, rounded_sum

namespace vitrail::patching {

constexpr int32_t kStripRows = 16, kMostLanes = 256;

VT_HOST_DEVICE inline int32_t strips_of(const BlurLevel& level) {
  return (level.edge() + kStripRows - 1) / kStripRows;
}
/// A power of two: as many as there are pieces, up to kMostLanes.
VT_HOST_DEVICE inline int32_t lanes_of(const BlurLevel& level) {
  const int32_t pieces = level.edge() * strips_of(level);
  int32_t lanes = 1;
  while (lanes < pieces && lanes < kMostLanes) lanes *= 2;
  return lanes;
}

/// Where pixel i of an axis lies among `count` values of the reduced axis.
struct Between {
  int32_t low, high;
  float share;  // of `high`
};
VT_HOST_DEVICE inline Between between(int32_t i, int32_t level, int32_t count) {
  // In units of 1 / (2 factor) of a reduced value, from the first one's centre; shares are exact.
  const int32_t whole = 2 << level;
  const int32_t place = 2 * i + 1 - whole / 2 < 0 ? 0 : 2 * i + 1 - whole / 2;
  const int32_t low = place >> (level + 1);
  return {low, low + 1 < count ? low + 1 : low,
          static_cast<float>(place & (whole - 1)) * (1.0f / static_cast<float>(whole))};
}
VT_HOST_DEVICE inline float interpolated(float low, float high, float share) {
  return rounded_sum(rounded_product(1.0f - share, low), rounded_product(share, high));
}

/// First of the four pixels that reduced value (i, j) is the mean of: those around its centre.
VT_HOST_DEVICE inline int64_t first_pixel(const BlurLevel& level, int32_t i, int32_t j) {
  const int32_t middle = (1 << level.level) / 2 - 1;
  return static_cast<int64_t>((i << level.level) + middle) * level.width + (j << level.level) +
         middle;
}
VT_HOST_DEVICE inline float mean_of_four(const float* first, int32_t width) {
  return rounded_product(0.25f, rounded_sum(rounded_sum(first[0], first[1]),
                                            rounded_sum(first[width], first[width + 1])));
}

VT_HOST_DEVICE inline float squared_difference(float above, float below, float share, float pixel) {
  const float lost = rounded_sum(interpolated(above, below, share), -pixel);
  return rounded_product(lost, lost);
}

/// The copy's values in one column of one channel, row after row downwards.
struct BlurredColumn {
  const BlurLevel& level;
  const float* plane;
  Between column;
  int32_t held = -1;  // reduced row of `above`
  float above = 0.0f, below = 0.0f;

  VT_HOST_DEVICE float reduced(int32_t i) const {
    return interpolated(mean_of_four(plane + first_pixel(level, i, column.low), level.width),
                        mean_of_four(plane + first_pixel(level, i, column.high), level.width),
                        column.share);
  }
  VT_HOST_DEVICE float loss(int32_t y, float pixel) {
    const Between row = between(y, level.level, level.height >> level.level);
    if (row.low != held) {  // the next one, or the first
      above = held < 0 ? reduced(row.low) : below;
      below = reduced(row.high);
      held = row.low;
    }
    return squared_difference(above, below, row.share, pixel);
  }
};

/// Column x, rows first ... last - 1 of sample b.
VT_HOST_DEVICE inline float piece_sum(const BlurLevel& level, int64_t b, int32_t first,
                                      int32_t last, int32_t x) {
  constexpr int32_t kAtOnce = 4;  // pixels on their way from memory
  const int64_t pixels = static_cast<int64_t>(level.height) * level.width;
  const Between column = between(x, level.level, level.width >> level.level);
  float sum = 0.0f;
  for (int64_t c = 0; c < level.channels; ++c) {
    const float* plane = level.image + (b * level.channels + c) * pixels;
    BlurredColumn blurred{level, plane, column};
    for (int32_t y = first; y < last; y += kAtOnce) {
      float pixel[kAtOnce];
      for (int32_t k = 0; k < kAtOnce; ++k)
        pixel[k] = y + k < last ? plane[static_cast<int64_t>(y + k) * level.width + x] : 0.0f;
      for (int32_t k = 0; k < kAtOnce; ++k)
        if (y + k < last) sum = rounded_sum(sum, blurred.loss(y + k, pixel[k]));
    }
  }
  return sum;
}

/// `patch` counts through all samples, row-major.
VT_HOST_DEVICE inline float lane_sum(const BlurLevel& level, int32_t patch, int32_t lane) {
  const int32_t edge = level.edge(), pieces = edge * strips_of(level), lanes = lanes_of(level);
  const int32_t rows = level.rows(), columns = level.columns();
  const int32_t line = patch / columns, b = line / rows;
  const int32_t left = (patch - line * columns) * edge, top = (line - b * rows) * edge;
  float sum = 0.0f;
  for (int32_t piece = lane; piece < pieces; piece += lanes) {
    const int32_t strip = piece / edge, first = strip * kStripRows;
    const int32_t last = first + kStripRows < edge ? first + kStripRows : edge;
    sum =
        rounded_sum(sum, piece_sum(level, b, top + first, top + last, left + piece - strip * edge));
  }
  return sum;
}

/// 1 / (channels * edge): edge * sum / (channels * edge^2).
VT_HOST_DEVICE inline float blur_score(const BlurLevel& level, float sum) {
  const float scale = static_cast<float>(1.0 / static_cast<double>(level.channels * level.edge()));
#ifdef __CUDA_ARCH__
  const float score = __fsqrt_rn(rounded_product(sum, scale));
#else
  const float score = std::sqrt(rounded_product(sum, scale));
#endif
  if (score != score) return 0.0f;
  return score > FLT_MAX ? FLT_MAX : score;
}

}  // namespace vitrail::patching
