#include "vitrail/data/pixels.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

template <class T>
std::vector<T> grey_to_rgb(const std::vector<T>& grey) {
  std::vector<T> rgb(3 * grey.size());
  for (size_t i = 0; i < grey.size(); ++i)
    for (size_t c = 0; c < 3; ++c) rgb[3 * i + c] = grey[i];
  return rgb;
}

/// Pillow's fixed point: the weights 0.299, 0.587, 0.114 times 2^16, rounded to nearest.
uint8_t luma(const uint8_t* rgb) {
  return static_cast<uint8_t>((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

float luma(const float* rgb) { return 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2]; }

template <class T>
std::vector<T> rgb_to_grey(const std::vector<T>& rgb) {
  std::vector<T> grey(rgb.size() / 3);
  for (size_t i = 0; i < grey.size(); ++i) grey[i] = luma(rgb.data() + 3 * i);
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
  const bool widens = pixels.channels == 1 && channels == 3;
  VT_REQUIRE(DataError, widens || (pixels.channels == 3 && channels == 1),
             "[data] {}: expected {} channel(s) (model.in_channels, or the source's variables) but "
             "the file has {}; only grey and RGB are converted into each other",
             path, channels, pixels.channels);
  pixels.channels = channels;
  pixels.values = widens ? grey_to_rgb(pixels.values) : rgb_to_grey(pixels.values);
  pixels.floats = widens ? grey_to_rgb(pixels.floats) : rgb_to_grey(pixels.floats);
  return pixels;
}

at::Tensor to_tensor(const Pixels& pixels) {
  std::vector<int64_t> shape{pixels.channels};
  shape.insert(shape.end(), pixels.sides.begin(), pixels.sides.end());
  at::Tensor image = at::empty(shape, at::kFloat);
  float* out = image.mutable_data_ptr<float>();
  const int64_t places = count(pixels.sides);
  with_values(pixels, [&](const auto& values) {
    for (int64_t c = 0; c < pixels.channels; ++c)
      for (int64_t i = 0; i < places; ++i)
        *out++ = static_cast<float>(values[static_cast<size_t>(i * pixels.channels + c)]) /
                 pixels.full_scale;
  });
  return image;
}

at::Tensor to_tensor(const Mask& mask) {
  at::Tensor result = at::empty(mask.sides, at::kLong);
  std::copy(mask.classes.begin(), mask.classes.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace vitrail::data
