#include "vitrail/patching/edges_strips.h"

#include <algorithm>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/edges_math.h"
#include "vitrail/patching/pixel_rows.h"

namespace vitrail::patching {

EdgeImage edge_image(std::span<const uint8_t> bytes, int64_t channels,
                     std::span<const int64_t> sides, const EdgeOptions& options, size_t values) {
  VT_CHECK(sides.size() == 2 || sides.size() == 3,
           "[patching] an image must have 2 or 3 sides but got {}", sides.size());
  for (const int64_t side : sides)
    VT_CHECK(side >= 1, "[patching] every side must be at least 1 but got {}", side);
  const int64_t pixels = core::checked_product(sides, "pixels of an image");
  VT_CHECK(
      channels >= 1 && std::ssize(bytes) == core::checked_mul(channels, pixels, "bytes") &&
          static_cast<int64_t>(values) == pixels,
      "[patching] an image of {} channels and {} pixels needs as many bytes but got {}, and {} "
      "for the map",
      channels, pixels, bytes.size(), values);
  VT_CHECK(options.blur == 1 || options.blur == 3 || options.blur == 5,
           "[patching] the blur must be 1, 3 or 5 but got {}", options.blur);
  VT_CHECK(options.low >= 0 && options.low <= options.high,
           "[patching] edge thresholds must be 0 <= low <= high but got {} and {}", options.low,
           options.high);
  const bool is_volume = sides.size() == 3;
  const size_t last = sides.size() - 1;
  return {bytes.data(),
          channels,
          {is_volume ? sides[0] : 1, sides[last - 1], sides[last], is_volume},
          options.blur,
          norm_threshold(options.low, is_volume),
          norm_threshold(options.high, is_volume)};
}

std::vector<Strip> strips_of(const Sides& sides, bool at_once) {
  // About 20 bytes of rings for each pixel of a volume's plane: half a megabyte. Rows of an image take
  // little; strips at once should each be worth a thread's start.
  constexpr int64_t kVolumePixels = int64_t{1} << 15, kImagePixels = int64_t{1} << 17;
  constexpr int64_t kLeastRows = 16;
  int64_t rows = sides.height;
  if (sides.is_volume)
    rows = std::max(kVolumePixels / sides.width, kLeastRows);
  else if (at_once)
    rows = std::max(kImagePixels / sides.width, kLeastRows);
  std::vector<Strip> strips;
  for (int64_t first = 0; first < sides.height; first += rows)
    strips.push_back({first, std::min(first + rows, sides.height)});
  return strips;
}

void run_all(const Runner& run, int64_t count, const std::function<void(int64_t)>& part) {
  if (run) return run(count, part);
  for (int64_t i = 0; i < count; ++i) part(i);
}

int64_t round_image(std::span<const float> image, int64_t channels, std::span<const float> range,
                    std::span<uint8_t> bytes) {
  VT_CHECK(channels >= 1 && image.size() == bytes.size() && std::ssize(image) % channels == 0,
           "[patching] {} values of {} channels cannot become {} bytes", image.size(), channels,
           bytes.size());
  VT_CHECK(range.empty() || std::ssize(range) == 2 * channels,
           "[patching] a range must have a least and a largest value for each of {} channels but "
           "has {} values",
           channels, range.size());
  const float* limits = range.empty() ? nullptr : range.data();
  const size_t pixels = image.size() / static_cast<size_t>(channels);
  std::vector<uint32_t> keys;
  for (int64_t c = 0; c < channels; ++c) {
    const auto [least, largest] = limits_of(image.subspan(static_cast<size_t>(c) * pixels, pixels));
    keys.insert(keys.end(), {order_key(largest), ~order_key(least)});
  }
  std::vector<Scale> scales(static_cast<size_t>(channels));
  sample_scales(keys.data(), limits, channels, scales.data());
  for (size_t c = 0; c < scales.size(); ++c)
    if (!round_to_bytes(image.subspan(c * pixels, pixels), scales[c], bytes.data() + c * pixels))
      return static_cast<int64_t>(c);
  return -1;
}

}  // namespace vitrail::patching
