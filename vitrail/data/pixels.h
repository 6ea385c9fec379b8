#pragma once
/// What a reader decodes, before the model's channels, size and normalisation are applied.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::data {

/// An image or volume as its file stores it.
/// Shapes   values is [sides..., channels], channel last; sides is [H, W] or [D, H, W].
struct Pixels {
  std::vector<int64_t> sides;
  int64_t channels = 1;
  std::vector<uint8_t> values;
  float full_scale = 255.0f;  // the value that stands for 1.0
};

/// Product of the sides.
int64_t count(const std::vector<int64_t>& sides);

/// "3 x 32 x 32"
std::string describe(const std::vector<int64_t>& sides);

/// Grey becomes RGB by repetition; RGB becomes grey by ITU-R 601 luma, equal to Pillow's
/// convert("L").
/// throws   DataError naming `path` for any other pair of channel counts.
Pixels to_channels(Pixels pixels, int64_t channels, const std::string& path);

/// Float [C, sides...] in [0, 1].
at::Tensor to_tensor(const Pixels& pixels);

}  // namespace vitrail::data
