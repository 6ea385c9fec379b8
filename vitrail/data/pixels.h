#pragma once
/// What a reader decodes, before the model's channels, size and normalisation are applied.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::data {

/// An image or volume as its file stores it, in bytes or in floats: exactly one of `values` and
/// `floats` is filled.
/// Shapes   both are [sides..., channels], channel last; sides is [H, W] or [D, H, W].
struct Pixels {
  std::vector<int64_t> sides;
  int64_t channels = 1;
  std::vector<uint8_t> values;
  std::vector<float> floats;
  float full_scale = 255.0f;  // the value that stands for 1.0; 1 for floats that have no scale

  bool is_float() const { return !floats.empty(); }
};

/// body(values) or body(floats), whichever holds the image.
template <class Body>
decltype(auto) with_values(const Pixels& pixels, Body&& body) {
  return pixels.is_float() ? body(pixels.floats) : body(pixels.values);
}

/// The class of every pixel; -1 = counts nowhere.
/// Shapes   classes is [sides...].
struct Mask {
  std::vector<int64_t> sides;
  std::vector<int32_t> classes;

  bool empty() const { return classes.empty(); }
};

/// Product of the sides.
int64_t count(const std::vector<int64_t>& sides);

/// "3 x 32 x 32"
std::string describe(const std::vector<int64_t>& sides);

/// Grey becomes RGB by repetition; RGB becomes grey by ITU-R 601 luma, for bytes equal to Pillow's
/// convert("L").
/// throws   DataError naming `path` for any other pair of channel counts.
Pixels to_channels(Pixels pixels, int64_t channels, const std::string& path);

/// Float [C, sides...], values / full_scale.
at::Tensor to_tensor(const Pixels& pixels);
/// Int64 [sides...].
at::Tensor to_tensor(const Mask& mask);

}  // namespace vitrail::data
