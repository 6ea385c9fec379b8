#include "vitrail/patching/compat_ucf.h"

#include <algorithm>
#include <array>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/leaf_boxes.h"
#include "vitrail/patching/resample.h"

namespace vitrail::patching {
namespace {

/// Of three axes; an image has one plane.
struct Node {
  std::array<int64_t, 3> low, high;
  int64_t value;
  int64_t edge() const { return high[2] - low[2]; }
};

class List {
 public:
  List(const UcfMap& map, std::span<const int64_t> sides, int64_t fixed_length)
      : map_(map), axes_(sides.size()), nodes_{Node{{0, 0, 0}, {1, 1, 1}, 0}} {
    std::copy(sides.begin(), sides.end(), nodes_[0].high.end() - std::ssize(sides));
    side_ = sides[0];
    nodes_[0].value = value_of(nodes_[0]);
    while (std::ssize(nodes_) < fixed_length) {
      const auto best = std::ranges::max_element(nodes_, {}, &Node::value);  // the first of equals
      if (best->edge() <= 2) break;
      const std::vector<Node> parts = children(*best);
      *best = parts[0];
      nodes_.insert(best + 1, parts.begin() + 1, parts.end());
    }
  }

  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  int64_t value_of(const Node& node) const {
    int64_t sum = 0;
    for (int64_t z = node.low[0]; z < node.high[0]; ++z)
      for (int64_t y = node.low[1]; y < node.high[1]; ++y) {
        const int32_t* row = map_.values.data() + (z * side_ + y) * side_;
        for (int64_t x = node.low[2]; x < node.high[2]; ++x) sum += row[x];
      }
    return sum / map_.unit;
  }

  std::vector<Node> children(const Node& node) const {
    std::vector<Node> parts;
    for (int corner = 0; corner < 1 << axes_; ++corner) {
      // The column's half changes fastest; an image begins with the rows of the larger numbers.
      const bool is_high[3] = {
          (corner & 4) != 0, axes_ == 2 ? (corner & 2) == 0 : (corner & 2) != 0, (corner & 1) != 0};
      Node part = node;
      for (size_t axis = 3 - axes_; axis < 3; ++axis) {
        const int64_t middle = (node.low[axis] + node.high[axis]) / 2;
        (is_high[axis] ? part.low[axis] : part.high[axis]) = middle;
      }
      part.value = value_of(part);
      parts.push_back(part);
    }
    return parts;
  }

  const UcfMap& map_;
  size_t axes_;
  int64_t side_ = 0;
  std::vector<Node> nodes_;
};

/// Place between two pixels of a leaf.
struct Between {
  int64_t first, second;
  double share;  // of the second
};

Between between(int64_t i, int64_t patch_size, int64_t pixels) {
  const int64_t steps = std::max<int64_t>(patch_size - 1, 1);
  const int64_t first = i * (pixels - 1) / steps;
  return {first, std::min(first + 1, pixels - 1),
          static_cast<double>(i * (pixels - 1) % steps) / static_cast<double>(steps)};
}

void resample_volume(const float* image, const LeafBoxes::Leaf& leaf,
                     const std::array<int64_t, 3>& sides, int64_t patch_size, float* patch) {
  for (int64_t z = 0; z < patch_size; ++z)
    for (int64_t y = 0; y < patch_size; ++y)
      for (int64_t x = 0; x < patch_size; ++x) {
        const Between along[3] = {between(z, patch_size, leaf.size[0]),
                                  between(y, patch_size, leaf.size[1]),
                                  between(x, patch_size, leaf.size[2])};
        double sum = 0;
        for (int corner = 0; corner < 8; ++corner) {
          int64_t index = 0;
          double weight = 1;
          for (int axis = 0; axis < 3; ++axis) {
            const Between& place = along[axis];
            const bool is_second = (corner >> axis & 1) != 0;
            index = index * sides[static_cast<size_t>(axis)] + leaf.low[static_cast<size_t>(axis)] +
                    (is_second ? place.second : place.first);
            weight *= is_second ? place.share : 1 - place.share;
          }
          sum += weight * static_cast<double>(image[index]);
        }
        *patch++ = static_cast<float>(sum);
      }
}

}  // namespace

EdgeOptions drawn_ucf_edges(uint64_t seed, int64_t epoch, int64_t index) {
  constexpr int64_t kSmoothings[] = {0, 1, 3, 5};
  // A layer of its own: not the numbers of drawn_edges or of augmentation.
  const core::DrawKey key{seed, core::Stream::augment, static_cast<uint32_t>(epoch), 0xEDF};
  const auto sample = static_cast<uint64_t>(index);
  const int64_t low = 50 + core::draw(key, sample, 1) % 50;
  return {kSmoothings[core::draw(key, sample, 0) % 4], low, low + 50};
}

int64_t ucf_boxes(const UcfMap& map, std::span<const int64_t> sides, int64_t fixed_length,
                  std::span<float> boxes) {
  VT_CHECK(sides.size() == 2 || sides.size() == 3,
           "[patching] an image must have 2 or 3 sides but got {}", sides.size());
  for (const int64_t side : sides)
    VT_CHECK(side >= 1 && side == sides[0] && (side & (side - 1)) == 0,
             "[patching] UCF-VIT's trees need equal sides that are powers of two but got {}",
             fmt::join(sides, " x "));
  const int64_t more = (int64_t{1} << sides.size()) - 1;
  VT_CHECK(fixed_length >= 1 && fixed_length % more == 1,
           "[patching] UCF-VIT's trees need {} n + 1 leaves but got {}", more, fixed_length);
  VT_CHECK(std::ssize(map.values) == pixels_of(sides) && map.unit >= 1 &&
               std::ssize(boxes) == fixed_length * 2 * std::ssize(sides),
           "[patching] an image of {} with {} leaves cannot have {} values and {} of boxes",
           fmt::join(sides, " x "), fixed_length, map.values.size(), boxes.size());
  const List list(map, sides, fixed_length);
  auto out = boxes.begin();
  const auto add = [&](const std::array<int64_t, 3>& corner) {
    for (size_t axis = 3 - sides.size(); axis < 3; ++axis)
      *out++ = static_cast<float>(corner[axis]);
  };
  for (const Node& node : list.nodes()) add(node.low), add(node.high);
  std::fill(out, boxes.end(), 0.0f);
  return std::ssize(list.nodes());
}

void ucf_serialise(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                   std::span<const float> boxes, int64_t patch_size, std::span<float> tokens) {
  if (sides.size() == 2)
    return serialise(image, channels, sides, boxes, patch_size, tokens, Resample::cubic);
  const LeafBoxes leaves(boxes, sides);
  const int64_t pixels = pixels_of(sides), patch_pixels = patch_size * patch_size * patch_size;
  VT_CHECK(std::ssize(image) == channels * pixels &&
               std::ssize(tokens) == channels * leaves.count() * patch_pixels,
           "[patching] {} channels of {} pixels and {} leaves of {} cannot have {} and {} values",
           channels, pixels, leaves.count(), patch_pixels, image.size(), tokens.size());
  float* patch = tokens.data();
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < leaves.count(); ++i, patch += patch_pixels) {
      if (leaves.is_padding(i))
        std::fill_n(patch, patch_pixels, 0.0f);
      else
        resample_volume(image.data() + c * pixels, leaves.leaf(i), leaves.sides(), patch_size,
                        patch);
    }
}

}  // namespace vitrail::patching
