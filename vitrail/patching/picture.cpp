#include "vitrail/patching/picture.h"

#include <algorithm>
#include <array>

#include "vitrail/core/error.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/leaf_boxes.h"

namespace vitrail::patching {
namespace {

constexpr int64_t kGap = 6, kWanted = 512, kMost = 2048, kSmallestLeaf = 6;
constexpr std::array<uint8_t, 3> kBorder{255, 214, 0};

/// The middle slice of a volume across one axis: its rows and columns are the other two.
struct Slice {
  size_t across, down, along;
  int64_t place, height, width;

  Slice(const std::array<int64_t, 3>& sides, size_t axis)
      : across(axis),
        down(axis == 0 ? 1 : 0),
        along(axis == 2 ? 1 : 2),
        place(sides[across] / 2),
        height(sides[down]),
        width(sides[along]) {}

  size_t index(const std::array<int64_t, 3>& sides, int64_t y, int64_t x) const {
    std::array<int64_t, 3> at{};
    at[across] = place, at[down] = y, at[along] = x;
    return static_cast<size_t>((at[0] * sides[1] + at[1]) * sides[2] + at[2]);
  }
};

class Canvas {
 public:
  Canvas(int64_t width, int64_t height)
      : picture_{width, height,
                 std::vector<uint8_t>(static_cast<size_t>(3 * width * height), 255)} {}
  void put(int64_t y, int64_t x, const std::array<uint8_t, 3>& rgb) {
    std::copy_n(rgb.begin(), 3, picture_.rgb.begin() + 3 * (y * picture_.width + x));
  }
  Picture take() { return std::move(picture_); }

 private:
  Picture picture_;
};

class Painter {
 public:
  explicit Painter(const PictureParts& parts)
      : parts_(parts),
        leaves_(parts.boxes, parts.sides),
        pixels_(pixels_of(parts.sides)),
        slices_(leaves_.axes() == 3 ? std::vector<Slice>{{leaves_.sides(), 0},
                                                         {leaves_.sides(), 1},
                                                         {leaves_.sides(), 2}}
                                    : std::vector<Slice>{{leaves_.sides(), 0}}) {
    const int64_t values = parts.channels * pixels_;
    VT_CHECK(parts.channels >= 1 && std::ssize(parts.bytes) == values &&
                 std::ssize(parts.pasted) == values && std::ssize(parts.edges) == pixels_,
             "[patching] a picture of {} channels and {} pixels cannot have {}, {} and {} values",
             parts.channels, pixels_, parts.bytes.size(), parts.pasted.size(), parts.edges.size());
    choose_zoom();
  }

  Picture paint() const {
    int64_t width = 0, height = -kGap;
    for (const Slice& slice : slices_) {
      width = std::max(width, 3 * slice.width * zoom_ + 2 * kGap);
      height += slice.height * zoom_ + kGap;
    }
    Canvas canvas(width, height);
    int64_t top = 0;
    for (const Slice& slice : slices_) {
      const int64_t step = slice.width * zoom_ + kGap;
      panel(canvas, slice, top, 0, [&](size_t i) { return colour(parts_.bytes, i); });
      borders(canvas, slice, top);
      panel(canvas, slice, top, step, [&](size_t i) {
        const auto grey = static_cast<uint8_t>(parts_.edges[i] != 0 ? 255 : 0);
        return std::array<uint8_t, 3>{grey, grey, grey};
      });
      panel(canvas, slice, top, 2 * step, [&](size_t i) { return colour(parts_.pasted, i); });
      top += slice.height * zoom_ + kGap;
    }
    return canvas.take();
  }

 private:
  void choose_zoom() {
    const int64_t longest = *std::max_element(parts_.sides.begin(), parts_.sides.end());
    int64_t smallest = longest;
    for (int64_t leaf = 0; leaf < leaves_.count(); ++leaf)
      if (!leaves_.is_padding(leaf)) smallest = std::min(smallest, leaves_.leaf(leaf).size[2]);
    zoom_ = std::max((kWanted + longest - 1) / longest, (kSmallestLeaf + smallest - 1) / smallest);
    zoom_ = std::clamp<int64_t>(zoom_, 1, std::max<int64_t>(kMost / longest, 1));
  }

  std::array<uint8_t, 3> colour(std::span<const uint8_t> bytes, size_t i) const {
    const auto pixels = static_cast<size_t>(pixels_);
    if (parts_.channels == 3) return {bytes[i], bytes[i + pixels], bytes[i + 2 * pixels]};
    return {bytes[i], bytes[i], bytes[i]};
  }

  template <class ColourAt>
  void panel(Canvas& canvas, const Slice& slice, int64_t top, int64_t left,
             ColourAt&& colour_at) const {
    for (int64_t y = 0; y < slice.height * zoom_; ++y)
      for (int64_t x = 0; x < slice.width * zoom_; ++x)
        canvas.put(top + y, left + x,
                   colour_at(slice.index(leaves_.sides(), y / zoom_, x / zoom_)));
  }

  /// Along the low sides of every leaf; the picture's own end closes the last ones.
  void borders(Canvas& canvas, const Slice& slice, int64_t top) const {
    for (int64_t i = 0; i < leaves_.count(); ++i) {
      const auto& [low, size] = leaves_.leaf(i);
      const bool is_cut =
          low[slice.across] <= slice.place && slice.place < low[slice.across] + size[slice.across];
      if (leaves_.is_padding(i) || !is_cut) continue;
      const int64_t y0 = low[slice.down] * zoom_, x0 = low[slice.along] * zoom_;
      const int64_t height = size[slice.down] * zoom_, width = size[slice.along] * zoom_;
      for (int64_t x = 0; x < width; ++x) canvas.put(top + y0, x0 + x, kBorder);
      for (int64_t y = 0; y < height; ++y) canvas.put(top + y0 + y, x0, kBorder);
    }
  }

  const PictureParts& parts_;
  LeafBoxes leaves_;
  int64_t pixels_;
  std::vector<Slice> slices_;
  int64_t zoom_ = 1;
};

}  // namespace

Picture draw_leaves(const PictureParts& parts) { return Painter(parts).paint(); }

}  // namespace vitrail::patching
