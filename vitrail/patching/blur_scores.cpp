// Vectorized as resample_leaves.cpp: no multiplication is fused with an addition.
#pragma GCC optimize("O3,no-trapping-math,fp-contract=off")
#include "vitrail/patching/blur_scores.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/vectorize.h"
#include "vitrail/patching/blur_scores_lane.h"

namespace vitrail::patching {
namespace {

/// `first` is the first pixel of the row's first reduced value.
VT_VECTORIZED void reduce_row(const float* first, int32_t width, int32_t factor, int32_t count,
                              float* out) {
  for (int32_t j = 0; j < count; ++j) out[j] = mean_of_four(first + j * factor, width);
}

VT_VECTORIZED void enlarge_row(const float* reduced, const int32_t* low, const int32_t* high,
                               const float* share, int32_t width, float* out) {
  for (int32_t x = 0; x < width; ++x)
    out[x] = interpolated(reduced[low[x]], reduced[high[x]], share[x]);
}

VT_VECTORIZED void add_losses(const float* above, const float* below, float share,
                              const float* pixels, int32_t width, float* sums) {
  for (int32_t x = 0; x < width; ++x)
    sums[x] = rounded_sum(sums[x], squared_difference(above[x], below[x], share, pixels[x]));
}

/// All patches of one row at once: their columns side by side.
class PatchRow {
 public:
  explicit PatchRow(const BlurLevel& level)
      : level_(level),
        low_(size(level.width)),
        high_(size(level.width)),
        share_(size(level.width)),
        reduced_(size(level.width >> level.level)),
        above_(size(level.width)),
        below_(size(level.width)),
        sums_(size(level.width)) {
    for (int32_t x = 0; x < level.width; ++x) {
      const Between place = between(x, level.level, level.width >> level.level);
      low_[size(x)] = place.low, high_[size(x)] = place.high, share_[size(x)] = place.share;
    }
  }

  /// `row` counts through all samples.
  void score(int64_t row) {
    const int32_t edge = level_.edge(), columns = level_.columns(), lanes = lanes_of(level_);
    const int64_t b = row / level_.rows();
    const auto top = static_cast<int32_t>(row - b * level_.rows()) * edge;
    std::vector<float> lanes_of_patch(size(columns) * size(lanes));
    for (int32_t first = 0, piece = 0; first < edge; first += kStripRows, piece += edge) {
      sum_strip(b, top + first, top + std::min(first + kStripRows, edge));
      for (int32_t x = 0; x < level_.width; ++x) {
        const int32_t patch = x / edge, lane = (piece + x - patch * edge) & (lanes - 1);
        float& sum = lanes_of_patch[size(patch) * size(lanes) + size(lane)];
        sum = rounded_sum(sum, sums_[size(x)]);
      }
    }
    for (int32_t patch = 0; patch < columns; ++patch) {
      float* sums = lanes_of_patch.data() + size(patch) * size(lanes);
      for (int32_t half = lanes / 2; half > 0; half /= 2)
        for (int32_t lane = 0; lane < half; ++lane)
          sums[lane] = rounded_sum(sums[lane], sums[lane + half]);
      level_.scores[row * columns + patch] = blur_score(level_, sums[0]);
    }
  }

 private:
  static size_t size(int32_t value) { return static_cast<size_t>(value); }

  void enlarge(const float* plane, int32_t i, std::vector<float>& out) {
    reduce_row(plane + first_pixel(level_, i, 0), level_.width, 1 << level_.level,
               level_.width >> level_.level, reduced_.data());
    enlarge_row(reduced_.data(), low_.data(), high_.data(), share_.data(), level_.width,
                out.data());
  }

  /// All columns' pieces between two rows, into sums_.
  void sum_strip(int64_t b, int32_t first, int32_t last) {
    std::ranges::fill(sums_, 0.0f);
    const int64_t pixels = static_cast<int64_t>(level_.height) * level_.width;
    for (int64_t c = 0; c < level_.channels; ++c) {
      const float* plane = level_.image + (b * level_.channels + c) * pixels;
      int32_t held = -1;
      for (int32_t y = first; y < last; ++y) {
        const Between row = between(y, level_.level, level_.height >> level_.level);
        if (row.low != held) {
          std::swap(above_, below_);
          if (held < 0) enlarge(plane, row.low, above_);
          enlarge(plane, row.high, below_);
          held = row.low;
        }
        add_losses(above_.data(), below_.data(), row.share,
                   plane + static_cast<int64_t>(y) * level_.width, level_.width, sums_.data());
      }
    }
  }

  const BlurLevel& level_;
  std::vector<int32_t> low_, high_;
  std::vector<float> share_, reduced_, above_, below_, sums_;
};

}  // namespace

void check_blur_level(const BlurLevel& level) {
  // So that 32 bits hold twice a pixel's place, and a patch's pieces.
  constexpr int64_t kMostSide = 1 << 28, kMostEdge = 1 << 16;
  VT_CHECK(
      level.patch >= 1 && level.level >= 1 && level.level <= 24 && level.channels >= 1 &&
          level.batch >= 0 && level.height >= 1 && level.width >= 1 && level.height < kMostSide &&
          level.width < kMostSide && static_cast<int64_t>(level.patch) << level.level <= kMostEdge,
      "[patching] scores need patches of at least 1 pixel, levels from 1, edges up to 2^16 and "
      "sides below 2^28 "
      "but got patch {}, level {}, {} channels of {} x {}",
      level.patch, level.level, level.channels, level.height, level.width);
  VT_CHECK(level.height % level.edge() == 0 && level.width % level.edge() == 0,
           "[patching] patches of edge {} must tile the image but it is {} x {}", level.edge(),
           level.height, level.width);
  VT_CHECK(level.patches() < INT32_MAX,
           "[patching] a batch must have below 2^31 patches but has {}", level.patches());
}

void blur_scores(const BlurLevel& level) {
  check_blur_level(level);
  const int64_t values = level.channels * level.edge() * level.width;
  constexpr int64_t kLeastValues = 1 << 16;  // worth a thread
  at::parallel_for(0, level.batch * level.rows(), std::max<int64_t>(1, kLeastValues / values),
                   [&](int64_t begin, int64_t end) {
                     PatchRow patches(level);
                     for (int64_t row = begin; row < end; ++row) patches.score(row);
                   });
}

}  // namespace vitrail::patching
