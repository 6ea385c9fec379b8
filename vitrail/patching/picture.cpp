#include "vitrail/patching/picture.h"

#include <algorithm>
#include <array>

#include "vitrail/core/error.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/leaf_boxes.h"

namespace vitrail::patching {
namespace {

constexpr int64_t kGap = 6, kWanted = 512, kMost = 2048, kSmallestLeaf = 6;
using Colour = std::array<uint8_t, 3>;
constexpr Colour kBorder{255, 214, 0};

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Picture blank(int64_t height, int64_t width) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height), 255)};
}

void put(Picture& picture, int64_t y, int64_t x, const Colour& colour) {
  std::copy_n(colour.begin(), 3, picture.rgb.begin() + 3 * (y * picture.width + x));
}

void insert(Picture& whole, const Picture& part, int64_t top, int64_t left) {
  for (int64_t y = 0; y < part.height; ++y)
    std::copy_n(part.rgb.begin() + 3 * y * part.width, 3 * part.width,
                whole.rgb.begin() + 3 * ((top + y) * whole.width + left));
}

Picture beside(std::span<const Picture> pictures) {
  int64_t height = 0, width = -kGap;
  for (const Picture& picture : pictures) {
    height = std::max(height, picture.height);
    width += picture.width + kGap;
  }
  Picture whole = blank(height, width);
  int64_t left = 0;
  for (const Picture& picture : pictures) {
    insert(whole, picture, 0, left);
    left += picture.width + kGap;
  }
  return whole;
}

/// From pixels of an array to those of a picture: each `zoom` times as large, or `shrink` times as small.
struct Scale {
  int64_t zoom = 1, shrink = 1;

  /// Of `longest` pixels of which `smallest` are to be told apart.
  static Scale of(int64_t longest, int64_t smallest) {
    if (longest > kMost) return {1, divided_up(longest, kMost)};
    const int64_t zoom =
        std::max(divided_up(kWanted, longest), divided_up(kSmallestLeaf, smallest));
    return {std::clamp<int64_t>(zoom, 1, std::max<int64_t>(kMost / longest, 1)), 1};
  }
  int64_t size(int64_t pixels) const { return divided_up(pixels, shrink) * zoom; }
  int64_t place(int64_t pixel) const { return pixel / shrink * zoom; }
};

/// A slice of a volume across one axis: its rows and columns are the other two.
struct Slice {
  size_t across, down, along;
  int64_t place, height, width;

  Slice(const std::array<int64_t, 3>& sides, size_t axis, int64_t place_)
      : across(axis),
        down(axis == 0 ? 1 : 0),
        along(axis == 2 ? 1 : 2),
        place(place_),
        height(sides[down]),
        width(sides[along]) {}

  size_t index(const std::array<int64_t, 3>& sides, int64_t y, int64_t x) const {
    std::array<int64_t, 3> at{};
    at[across] = place, at[down] = y, at[along] = x;
    return static_cast<size_t>((at[0] * sides[1] + at[1]) * sides[2] + at[2]);
  }
};

/// The mean, or the largest, of what a pixel of a reduced picture stands for.
enum class Blend { mean, most };

/// [height, width] of colour_at(y, x).
template <class ColourAt>
Picture rendered(int64_t height, int64_t width, Scale scale, Blend blend, ColourAt&& colour_at) {
  Picture picture = blank(scale.size(height), scale.size(width));
  for (int64_t y = 0; y < picture.height; ++y)
    for (int64_t x = 0; x < picture.width; ++x) {
      const int64_t y0 = y / scale.zoom * scale.shrink, x0 = x / scale.zoom * scale.shrink;
      const int64_t y1 = std::min(y0 + scale.shrink, height),
                    x1 = std::min(x0 + scale.shrink, width);
      std::array<int64_t, 3> sum{}, most{};
      for (int64_t yy = y0; yy < y1; ++yy)
        for (int64_t xx = x0; xx < x1; ++xx) {
          const Colour colour = colour_at(yy, xx);
          for (size_t c = 0; c < 3; ++c) {
            sum[c] += colour[c];
            most[c] = std::max<int64_t>(most[c], colour[c]);
          }
        }
      const int64_t count = (y1 - y0) * (x1 - x0);
      Colour shown;
      for (size_t c = 0; c < 3; ++c)
        shown[c] = static_cast<uint8_t>(blend == Blend::most ? most[c] : sum[c] / count);
      put(picture, y, x, shown);
    }
  return picture;
}

class Painter {
 public:
  explicit Painter(const PictureParts& parts)
      : parts_(parts), leaves_(parts.boxes, parts.sides), pixels_(pixels_of(parts.sides)) {
    const int64_t values = parts.channels * pixels_;
    VT_CHECK(parts.channels >= 1 && std::ssize(parts.bytes) == values &&
                 std::ssize(parts.pasted) == values && std::ssize(parts.importance) == pixels_,
             "[patching] a picture of {} channels and {} pixels cannot have {}, {} and {} values",
             parts.channels, pixels_, parts.bytes.size(), parts.importance.size(),
             parts.pasted.size());
    patch_pixels_ = 1;
    for (int64_t axis = 0; axis < leaves_.axes(); ++axis) patch_pixels_ *= parts.patch_size;
    VT_CHECK(std::ssize(parts.tokens) == parts.channels * leaves_.count() * patch_pixels_,
             "[patching] {} leaves of {} channels and {} pixels cannot have {} values",
             leaves_.count(), parts.channels, patch_pixels_, parts.tokens.size());
    const int64_t longest = *std::max_element(parts.sides.begin(), parts.sides.end());
    int64_t smallest = longest;
    for (int64_t leaf = 0; leaf < leaves_.count(); ++leaf)
      if (!leaves_.is_padding(leaf)) smallest = std::min(smallest, leaves_.leaf(leaf).size[2]);
    scale_ = Scale::of(longest, smallest);
    most_ = pixels_ > 0 ? *std::max_element(parts.importance.begin(), parts.importance.end()) : 0;
  }

  Picture paint() const {
    std::vector<Picture> rows;
    for (const Slice& slice : slices()) {
      const Picture panels[] = {
          with_borders(slice), panel(slice, Blend::most, [&](size_t i) { return detail(i); }),
          panel(slice, Blend::mean, [&](size_t i) { return colour(parts_.pasted, pixels_, i); })};
      rows.push_back(beside(panels));
    }
    const Picture both[] = {stacked(rows), mosaic()};
    return beside(both);
  }

 private:
  std::vector<Slice> slices() const {
    const std::array<int64_t, 3>& sides = leaves_.sides();
    std::vector<Slice> slices{{sides, 0, sides[0] / 2}};
    if (leaves_.axes() != 3) return slices;
    for (size_t axis : {1, 2}) slices.emplace_back(sides, axis, sides[axis] / 2);
    const int64_t more = std::min(parts_.slices, sides[0]);
    for (int64_t i = 0; i < more; ++i)
      slices.emplace_back(sides, 0, (2 * i + 1) * sides[0] / (2 * more));
    return slices;
  }

  Colour colour(std::span<const uint8_t> bytes, int64_t plane, size_t i) const {
    const auto step = static_cast<size_t>(plane);
    if (parts_.channels == 3) return {bytes[i], bytes[i + step], bytes[i + 2 * step]};
    return {bytes[i], bytes[i], bytes[i]};
  }

  Colour detail(size_t i) const {
    const int most = std::max<int>(most_, 1);
    const auto grey = static_cast<uint8_t>(255 * parts_.importance[i] / most);
    return {grey, grey, grey};
  }

  template <class ColourAt>
  Picture panel(const Slice& slice, Blend blend, ColourAt&& colour_at) const {
    return rendered(slice.height, slice.width, scale_, blend, [&](int64_t y, int64_t x) {
      return colour_at(slice.index(leaves_.sides(), y, x));
    });
  }

  /// The image, and lines along the low sides of every leaf; the picture's own end closes the last ones.
  Picture with_borders(const Slice& slice) const {
    Picture picture =
        panel(slice, Blend::mean, [&](size_t i) { return colour(parts_.bytes, pixels_, i); });
    for (int64_t i = 0; i < leaves_.count(); ++i) {
      const auto& [low, size] = leaves_.leaf(i);
      const bool is_cut =
          low[slice.across] <= slice.place && slice.place < low[slice.across] + size[slice.across];
      if (leaves_.is_padding(i) || !is_cut) continue;
      const int64_t y0 = scale_.place(low[slice.down]), x0 = scale_.place(low[slice.along]);
      const int64_t y1 = scale_.place(low[slice.down] + size[slice.down] - 1) + scale_.zoom;
      const int64_t x1 = scale_.place(low[slice.along] + size[slice.along] - 1) + scale_.zoom;
      for (int64_t x = x0; x < x1; ++x) put(picture, y0, x, kBorder);
      for (int64_t y = y0; y < y1; ++y) put(picture, y, x0, kBorder);
    }
    return picture;
  }

  Picture mosaic() const {
    const int64_t patch = parts_.patch_size, count = leaves_.count();
    int64_t cells = 1;
    while (cells * cells < count) ++cells;
    const int64_t side = cells * patch, rows = divided_up(count, cells) * patch;
    const int64_t middle = leaves_.axes() == 3 ? patch / 2 * patch * patch : 0;
    return rendered(
        rows, side, Scale::of(side, patch), Blend::mean, [&](int64_t y, int64_t x) -> Colour {
          const int64_t leaf = y / patch * cells + x / patch;
          if (leaf >= count || leaves_.is_padding(leaf)) return {255, 255, 255};
          const int64_t i = leaf * patch_pixels_ + middle + y % patch * patch + x % patch;
          return colour(parts_.tokens, count * patch_pixels_, static_cast<size_t>(i));
        });
  }

  const PictureParts& parts_;
  LeafBoxes leaves_;
  int64_t pixels_, patch_pixels_ = 1;
  uint8_t most_ = 0;
  Scale scale_;
};

}  // namespace

Picture draw_leaves(const PictureParts& parts) { return Painter(parts).paint(); }

Picture stacked(std::span<const Picture> pictures) {
  int64_t height = -kGap, width = 0;
  for (const Picture& picture : pictures) {
    width = std::max(width, picture.width);
    height += picture.height + kGap;
  }
  Picture whole = blank(height, width);
  int64_t top = 0;
  for (const Picture& picture : pictures) {
    insert(whole, picture, top, 0);
    top += picture.height + kGap;
  }
  return whole;
}

}  // namespace vitrail::patching
