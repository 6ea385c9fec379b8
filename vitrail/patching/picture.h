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

/// What a picture is made of. Shapes: bytes and pasted [C, sides...], edges [sides...], boxes [L, 2k].
struct PictureParts {
  int64_t channels = 1;
  std::span<const int64_t> sides;
  std::span<const uint8_t> bytes;   // the image
  std::span<const uint8_t> edges;   // 1 = edge
  std::span<const uint8_t> pasted;  // what the tokens keep of the image
  std::span<const float> boxes;
};

/// Side by side: the image with the borders of its leaves, the edges, what the tokens keep; of a volume
/// one row for the middle slice across each axis. Three channels are shown as RGB, else the first.
/// Small images are enlarged, pixel by pixel, so that leaves can be told apart.
/// throws   Error for spans of another size.
Picture draw_leaves(const PictureParts& parts);

}  // namespace vitrail::patching
