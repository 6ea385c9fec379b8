#include "vitrail/data/pixels.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

Pixels with_channels(const Pixels& from, int64_t channels) {
  Pixels to;
  to.sides = from.sides;
  to.channels = channels;
  to.full_scale = from.full_scale;
  to.values.resize(static_cast<size_t>(count(from.sides) * channels));
  return to;
}

Pixels grey_to_rgb(const Pixels& grey) {
  Pixels rgb = with_channels(grey, 3);
  for (size_t i = 0; i < grey.values.size(); ++i)
    for (size_t c = 0; c < 3; ++c) rgb.values[3 * i + c] = grey.values[i];
  return rgb;
}

/// Pillow's fixed point: the weights 0.299, 0.587, 0.114 times 2^16, rounded to nearest.
Pixels rgb_to_grey(const Pixels& rgb) {
  Pixels grey = with_channels(rgb, 1);
  for (size_t i = 0; i < grey.values.size(); ++i) {
    const uint8_t* value = rgb.values.data() + 3 * i;
    const uint32_t luma = 19595u * value[0] + 38470u * value[1] + 7471u * value[2] + 0x8000u;
    grey.values[i] = static_cast<uint8_t>(luma >> 16);
  }
  return grey;
}

}  // namespace

int64_t count(const std::vector<int64_t>& sides) {
  int64_t product = 1;
  for (const int64_t side : sides) product *= side;
  return product;
}

std::string describe(const std::vector<int64_t>& sides) {
  return fmt::format("{}", fmt::join(sides, " x "));
}

Pixels to_channels(Pixels pixels, int64_t channels, const std::string& path) {
  if (pixels.channels == channels) return pixels;
  if (pixels.channels == 1 && channels == 3) return grey_to_rgb(pixels);
  if (pixels.channels == 3 && channels == 1) return rgb_to_grey(pixels);
  core::fail<core::DataError>(
      "[data] {}: expected {} channel(s) (model.in_channels) but the file has {}; only grey and "
      "RGB "
      "are converted into each other",
      path, channels, pixels.channels);
}

at::Tensor to_tensor(const Pixels& pixels) {
  std::vector<int64_t> shape{pixels.channels};
  shape.insert(shape.end(), pixels.sides.begin(), pixels.sides.end());
  at::Tensor image = at::empty(shape, at::kFloat);
  float* out = image.mutable_data_ptr<float>();
  const int64_t places = count(pixels.sides);
  for (int64_t c = 0; c < pixels.channels; ++c)
    for (int64_t i = 0; i < places; ++i)
      *out++ = static_cast<float>(pixels.values[static_cast<size_t>(i * pixels.channels + c)]) /
               pixels.full_scale;
  return image;
}

}  // namespace vitrail::data
