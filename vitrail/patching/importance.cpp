#include "vitrail/patching/importance.h"

#include <algorithm>
#include <array>

#include "vitrail/core/error.h"
#include "vitrail/patching/edges_gradient.h"
#include "vitrail/patching/edges_rows.h"
#include "vitrail/patching/edges_strips.h"

namespace vitrail::patching {
namespace {

std::array<int64_t, 3> sides_of(const EdgeImage& image) {
  return {image.sides.depth, image.sides.height, image.sides.width};
}

/// Row y of plane z of a map.
uint8_t* row_of(std::span<uint8_t> map, const Sides& sides, int64_t z, int64_t y) {
  return map.data() + (z * sides.height + y) * sides.width;
}

void add_gradients(const EdgeImage& image, Strip strip, int64_t c, std::span<uint8_t> map) {
  const auto [depth, height, width] = sides_of(image);
  RowRing<int16_t> parts(3, width, 0);
  int16_t *gz = parts.row(0), *gy = parts.row(1), *gx = parts.row(2);
  if (!image.sides.is_volume) {
    ImageGradient gradient(image.channel(c), height, width, image.blur, strip.first);
    for (int64_t y = strip.first; y < strip.last; ++y) {
      gradient.row(y, gy, gx);
      gradient_maxima(nullptr, gy, gx, row_of(map, image.sides, 0, y), width);
    }
    return;
  }
  VolumeGradient gradient(image.channel(c), sides_of(image), image.blur, strip.first, strip.last);
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = strip.first; y < strip.last; ++y) {
      gradient.row(z, y, gz, gy, gx);
      gradient_maxima(gz, gy, gx, row_of(map, image.sides, z, y), width);
    }
}

constexpr int64_t kRadius = 2;  // of the neighbourhood of 5^k pixels

void add_image_variances(const EdgeImage& image, Strip strip, int64_t c, std::span<uint8_t> map) {
  const auto [depth, height, width] = sides_of(image);
  const uint8_t* bytes = image.channel(c);
  RowRing<uint16_t> sums(1, width, kRadius);
  for (int64_t y = strip.first; y < strip.last; ++y) {
    TapRows<uint8_t> taps{};
    for (int64_t t = 0; t < 5; ++t)
      taps[static_cast<size_t>(t)] = bytes + reflected(y + t - kRadius, height) * width;
    box_across(taps, sums.row(0), width);
    mirror_ends(sums.row(0), width, kRadius);
    variance_maxima(bytes + y * width, sums.row(0), false, row_of(map, image.sides, 0, y), width);
  }
}

void add_volume_variances(const EdgeImage& image, Strip strip, int64_t c, std::span<uint8_t> map) {
  const auto [depth, height, width] = sides_of(image);
  const uint8_t* bytes = image.channel(c);
  const int64_t from = std::max<int64_t>(strip.first - kRadius, 0);
  const int64_t to = std::min(strip.last + kRadius, height);
  std::vector<uint16_t> deep(static_cast<size_t>((to - from) * width));
  RowRing<uint16_t> sums(1, width, kRadius);
  for (int64_t z = 0; z < depth; ++z) {
    TapRows<uint8_t> planes{};
    for (int64_t t = 0; t < 5; ++t)
      planes[static_cast<size_t>(t)] =
          bytes + (reflected(z + t - kRadius, depth) * height + from) * width;
    box_across(planes, deep.data(), (to - from) * width);
    for (int64_t y = strip.first; y < strip.last; ++y) {
      TapRows<uint16_t> taps{};
      for (int64_t t = 0; t < 5; ++t)
        taps[static_cast<size_t>(t)] =
            deep.data() + (reflected(y + t - kRadius, height) - from) * width;
      box_across(taps, sums.row(0), width);
      mirror_ends(sums.row(0), width, kRadius);
      variance_maxima(bytes + (z * height + y) * width, sums.row(0), true,
                      row_of(map, image.sides, z, y), width);
    }
  }
}

}  // namespace

void importance_map(std::span<const uint8_t> bytes, int64_t channels,
                    std::span<const int64_t> sides, const LeafOptions& options,
                    const EdgeOptions& edges, std::span<uint8_t> map, const Runner& run) {
  if (options.importance == Importance::edges)
    return edge_map(bytes, channels, sides, edges, map, run);
  const EdgeImage image = edge_image(bytes, channels, sides, edges, map.size());
  const int64_t given = options.importance_channel;
  if (options.importance == Importance::given) {
    VT_CHECK(given >= 0 && given < channels,
             "[patching] the channel that gives importance must be one of {} but got {}", channels,
             given);
    std::copy_n(image.channel(given), map.size(), map.begin());
    return;
  }
  std::ranges::fill(map, uint8_t{0});
  const std::vector<Strip> strips = strips_of(image.sides, static_cast<bool>(run));
  run_all(run, std::ssize(strips), [&](int64_t s) {
    for (int64_t c = 0; c < channels; ++c) {
      const Strip strip = strips[static_cast<size_t>(s)];
      if (options.importance == Importance::gradient)
        add_gradients(image, strip, c, map);
      else if (image.sides.is_volume)
        add_volume_variances(image, strip, c, map);
      else
        add_image_variances(image, strip, c, map);
    }
  });
}

}  // namespace vitrail::patching
