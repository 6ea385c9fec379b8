// What UCF-VIT's trees divide by.

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/compat_ucf.h"
#include "vitrail/patching/filters.h"

namespace vitrail::patching {
namespace {

/// Draws of 16 bits in the place of [0, 1); 255 is there the value of an edge pixel.
UcfMap noise(std::span<const uint8_t> bytes, size_t pixels) {
  uint64_t seed = 0;
  for (const uint8_t byte : bytes) seed = core::mix64(seed ^ byte);
  const core::DrawKey key{seed, core::Stream::noise, 0, 0xEDF};
  UcfMap map{std::vector<int32_t>(pixels), int64_t{255} << 16};
  for (size_t i = 0; i < pixels; i += 4) {
    const core::Philox4 four = core::draw4(key, 0, static_cast<uint32_t>(i / 4));
    for (size_t j = 0; j < std::min<size_t>(4, pixels - i); ++j)
      map.values[i + j] = static_cast<int32_t>(four.x[j] >> 16);
  }
  return map;
}

/// One axis of a volume: `stride` apart, `count` long, the mirror image beyond its ends. `repeats`: the
/// last value stands in the mirror too (scipy), or not (OpenCV).
int64_t mirrored(int64_t i, int64_t count, bool repeats) {
  if (count == 1) return 0;
  const int64_t period = repeats ? 2 * count : 2 * count - 2;
  i = (i % period + period) % period;
  if (i < count) return i;
  return repeats ? period - 1 - i : period - i;
}

void filter(std::vector<float>& values, int64_t stride, int64_t count,
            std::span<const double> weights, bool repeats) {
  const auto reach = static_cast<int64_t>(weights.size() / 2);
  std::vector<double> line(static_cast<size_t>(count));
  for (int64_t first = 0; first < std::ssize(values); ++first) {
    if (first / stride % count != 0) continue;
    for (int64_t i = 0; i < count; ++i) {
      double sum = 0;
      for (int64_t j = -reach; j <= reach; ++j)
        sum += weights[static_cast<size_t>(j + reach)] *
               static_cast<double>(
                   values[static_cast<size_t>(first + mirrored(i + j, count, repeats) * stride)]);
      line[static_cast<size_t>(i)] = sum;
    }
    for (int64_t i = 0; i < count; ++i)
      values[static_cast<size_t>(first + i * stride)] =
          static_cast<float>(line[static_cast<size_t>(i)]);
  }
}

/// Up to four standard deviations, as scipy's.
std::vector<double> gaussian(int64_t sigma) {
  std::vector<double> weights;
  double sum = 0;
  for (int64_t i = -4 * sigma; i <= 4 * sigma; ++i) {
    const double x = static_cast<double>(i) / static_cast<double>(sigma);
    sum += weights.emplace_back(std::exp(-0.5 * x * x));
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

struct Volume {
  std::span<const int64_t> sides;
  int64_t slice() const { return sides[1] * sides[2]; }
};

/// One channel's edges, and their directions there.
std::vector<uint8_t> slice_edges(const std::vector<float>& values, const Volume& volume,
                                 const EdgeOptions& options) {
  std::vector<uint8_t> bytes(values.size()), edges(values.size());
  std::ranges::transform(values, bytes.begin(), [](float v) { return static_cast<uint8_t>(v); });
  const auto slice = static_cast<size_t>(volume.slice());
  for (size_t at = 0; at < values.size(); at += slice)
    edge_map(std::span(bytes).subspan(at, slice), 1, volume.sides.subspan(1),
             {1, options.low, options.high}, std::span(edges).subspan(at, slice));
  return edges;
}

/// Leaves the edges whose direction in their slice lies in the upper half of those that occur.
void keep_upper_directions(const std::vector<float>& values, const Volume& volume,
                           std::vector<uint8_t>& edges) {
  constexpr double kDifference[] = {-1, -2, 0, 2, 1}, kSmooth[] = {1, 4, 6, 4, 1};
  std::vector<float> gx = values, gy = values;
  const int64_t width = volume.sides[2], height = volume.sides[1];
  filter(gx, 1, width, kDifference, false);
  filter(gx, width, height, kSmooth, false);
  filter(gy, 1, width, kSmooth, false);
  filter(gy, width, height, kDifference, false);
  float least = 0, most = 0;
  for (size_t i = 0; i < edges.size(); ++i) {
    gx[i] = edges[i] != 0 ? std::atan2(gy[i], gx[i]) : 0.0f;
    least = std::min(least, gx[i]);
    most = std::max(most, gx[i]);
  }
  for (size_t i = 0; i < edges.size(); ++i)
    edges[i] = edges[i] != 0 && (gx[i] - least) / (most - least) > 0.5f;
}

}  // namespace

UcfMap ucf_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
               const EdgeOptions& options) {
  const auto pixels = static_cast<size_t>(pixels_of(sides));
  VT_CHECK(bytes.size() == static_cast<size_t>(channels) * pixels,
           "[patching] {} channels of {} pixels cannot have {} bytes", channels, pixels,
           bytes.size());
  if (sides.size() == 2) {
    if (options.blur == 0) return noise(bytes, pixels);
    std::vector<uint8_t> edges(pixels);
    edge_map(bytes, channels, sides, options, edges);
    return {{edges.begin(), edges.end()}, 1};
  }
  const Volume volume{sides};
  UcfMap map{std::vector<int32_t>(pixels, 0), 1};
  for (int64_t c = 0; c < channels; ++c) {
    const auto first = bytes.begin() + c * static_cast<int64_t>(pixels);
    std::vector<float> values(first, first + static_cast<int64_t>(pixels));
    int64_t stride = volume.slice();
    for (size_t axis = 0; axis < 3 && options.blur > 0; ++axis) {
      filter(values, stride, sides[axis], gaussian(options.blur), true);
      if (axis < 2) stride /= sides[axis + 1];
    }
    std::vector<uint8_t> edges = slice_edges(values, volume, options);
    keep_upper_directions(values, volume, edges);
    for (size_t i = 0; i < pixels; ++i) map.values[i] += edges[i];
  }
  return map;
}

}  // namespace vitrail::patching
