#pragma once
/// Leaves over their image, for people.

#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::patching {

/// RGB rows from the top.
struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

/// What a picture is made of. Shapes: bytes and pasted [C, sides...], importance [sides...], boxes [L, 2k],
/// tokens [C, L, P^k].
struct PictureParts {
  int64_t channels = 1;
  std::span<const int64_t> sides;
  std::span<const uint8_t> bytes;       // the image
  std::span<const uint8_t> importance;  // shown from 0, black, to its largest value, white
  std::span<const uint8_t> pasted;      // what the tokens keep of the image
  std::span<const float> boxes;
  std::span<const uint8_t> tokens;
  int64_t patch_size = 1;
  int64_t slices =
      0;  // of a volume: this many across the first axis, evenly spaced, besides the middle ones
};

/// Side by side: the image with the borders of its leaves, the importance, what the tokens keep, and the mosaic: all
/// leaves as patches, row by row in a square, padding white. Of a volume a row for the middle slice across each axis
/// and one for each of `slices`; its mosaic shows the middle slice of every patch. Three channels are shown as RGB,
/// else the first. Small images are enlarged pixel by pixel so that leaves can be told apart, images above 2048 pixels
/// are reduced by a whole factor.
/// throws   Error for spans of another size.
Picture draw_leaves(const PictureParts& parts);

/// One below the other.
Picture stacked(std::span<const Picture> pictures);

}  // namespace vitrail::patching
