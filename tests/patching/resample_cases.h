#pragma once
// Random images, trees and a plain resampling written from its formulas, for the tests of resample.h and batch.h.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/core/philox.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching::test {

constexpr core::DrawKey kKey{5, core::Stream::test, 0, 2};
constexpr Resample kMethods[] = {Resample::area, Resample::cubic, Resample::linear};

inline std::vector<float> random_values(size_t count, uint64_t sample) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = core::normal(kKey, sample, static_cast<uint32_t>(i));
  return values;
}

/// Classes -1 ... classes - 1, in runs.
inline std::vector<int64_t> random_classes(size_t count, int64_t classes, uint64_t sample) {
  std::vector<int64_t> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = i % 3 == 0 ? core::draw(kKey, sample, static_cast<uint32_t>(i)) % (classes + 1) - 1
                           : values[i - 1];
  return values;
}

inline int64_t product(std::span<const int64_t> sides) {
  int64_t result = 1;
  for (const int64_t side : sides) result *= side;
  return result;
}

/// Leaves of a random tree, cut where the image ends, in no particular order, and two of padding.
struct Case {
  std::vector<int64_t> sides;
  int64_t channels = 1, patch = 1;
  std::vector<float> boxes;

  int64_t axes() const { return std::ssize(sides); }
  int64_t leaves() const { return std::ssize(boxes) / (2 * axes()); }
  int64_t pixels() const { return product(sides); }
  int64_t patch_pixels() const { return axes() == 3 ? patch * patch * patch : patch * patch; }
  int64_t token_values() const { return channels * leaves() * patch_pixels(); }
  int64_t image_values() const { return channels * pixels(); }
};

inline void grow(Case& made, uint64_t sample, uint32_t& draws, std::vector<int64_t> low,
                 int64_t edge, int64_t least) {
  const size_t k = low.size();
  for (size_t a = 0; a < k; ++a)
    if (low[a] >= made.sides[a]) return;
  if (edge > least && core::draw(kKey, sample, draws++) % 3 != 0) {
    for (size_t corner = 0; corner < (size_t{1} << k); ++corner) {
      std::vector<int64_t> child = low;
      for (size_t a = 0; a < k; ++a) child[a] += (corner >> a & 1) * (edge / 2);
      grow(made, sample, draws, child, edge / 2, least);
    }
    return;
  }
  for (const int64_t place : low) made.boxes.push_back(static_cast<float>(place));
  for (size_t a = 0; a < k; ++a)
    made.boxes.push_back(static_cast<float>(std::min(low[a] + edge, made.sides[a])));
}

inline Case random_case(uint64_t sample, size_t axes, int64_t least, int64_t patch) {
  Case made;
  made.channels = 1 + core::draw(kKey, sample, 0) % 3;
  made.patch = patch;
  int64_t root = least;
  for (uint32_t axis = 0; axis < axes; ++axis) {
    made.sides.push_back(1 + core::draw(kKey, sample, 1 + axis) % (axes == 2 ? 60 : 24));
    while (root < made.sides.back()) root *= 2;
  }
  uint32_t draws = 10;
  grow(made, sample, draws, std::vector<int64_t>(axes, 0), root, least);
  made.boxes.resize(made.boxes.size() + 4 * axes, 0.0f);
  return made;
}

/// [to][from]: a row of weights for each result, written from the formulas in floating point.
inline std::vector<std::vector<double>> plain_matrix(Resample method, int64_t from, int64_t to) {
  std::vector<std::vector<double>> matrix(static_cast<size_t>(to),
                                          std::vector<double>(static_cast<size_t>(from)));
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const auto cubic = [](double x) {
    x = std::abs(x);
    return x < 1   ? (1.25 * x - 2.25) * x * x + 1
           : x < 2 ? ((-0.75 * x + 3.75) * x - 6) * x + 3
                   : 0.0;
  };
  for (int64_t i = 0; i < to; ++i)
    for (int64_t j = -3; j < from + 3; ++j) {
      const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
      const double distance = static_cast<double>(j) - centre;
      double weight = std::max(0.0, 1 - std::abs(distance));
      if (from == to) {
        weight = i == j ? 1 : 0;
      } else if (method == Resample::cubic) {
        weight = cubic(distance);
      } else if (method == Resample::area && from > to) {
        const double low = static_cast<double>(i) * scale;
        weight = std::max(0.0, std::min(low + scale, static_cast<double>(j + 1)) -
                                   std::max(low, static_cast<double>(j))) /
                 scale;
      }
      const int64_t inside = std::clamp<int64_t>(j, 0, from - 1);
      matrix[static_cast<size_t>(i)][static_cast<size_t>(inside)] += weight;
    }
  return matrix;
}

inline Case case_of(int64_t channels, const std::vector<int64_t>& sides,
                    const std::vector<float>& boxes, int64_t patch) {
  return {sides, channels, patch, boxes};
}

inline std::vector<float> serialised(const Case& made, const std::vector<float>& image,
                                     Resample method = Resample::area) {
  std::vector<float> tokens(static_cast<size_t>(made.token_values()), -9.0f);
  serialise(image, made.channels, made.sides, made.boxes, made.patch, tokens, method);
  return tokens;
}
inline std::vector<float> serialised(const std::vector<float>& image, int64_t channels,
                                     const std::vector<int64_t>& sides,
                                     const std::vector<float>& boxes, int64_t patch,
                                     Resample method = Resample::area) {
  return serialised(case_of(channels, sides, boxes, patch), image, method);
}

}  // namespace vitrail::patching::test
