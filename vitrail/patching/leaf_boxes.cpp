#include "vitrail/patching/leaf_boxes.h"

#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::patching {
namespace {

LeafBoxes::Leaf read_leaf(std::span<const float> box, std::span<const int64_t> sides) {
  const size_t axes = sides.size();
  LeafBoxes::Leaf leaf{{0, 0, 0}, {1, 1, 1}};
  for (size_t axis = 0; axis < axes; ++axis) {
    const float low = box[axis], high = box[axes + axis];
    // Written so that NaN fails; only then are the numbers safe to convert.
    const bool inside = low >= 0 && high >= low && high <= static_cast<float>(sides[axis]);
    VT_CHECK(inside && low == static_cast<float>(static_cast<int64_t>(low)) &&
                 high == static_cast<float>(static_cast<int64_t>(high)),
             "[patching] a leaf must be a box of whole pixels in an image of {} but got {}",
             fmt::join(sides, " x "), fmt::join(box, ", "));
    leaf.low[3 - axes + axis] = static_cast<int64_t>(low);
    leaf.size[3 - axes + axis] = static_cast<int64_t>(high) - static_cast<int64_t>(low);
  }
  return leaf;
}

}  // namespace

LeafBoxes::LeafBoxes(std::span<const float> boxes, std::span<const int64_t> sides)
    : axes_(std::ssize(sides)) {
  constexpr int64_t kMostPixels = int64_t{1} << 24;  // floats count pixels exactly up to here
  VT_CHECK(axes_ == 2 || axes_ == 3, "[patching] an image must have 2 or 3 sides but got {}",
           axes_);
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    VT_CHECK(sides[axis] >= 1 && sides[axis] <= kMostPixels,
             "[patching] every side must be 1 to 2^24 but got {}", fmt::join(sides, " x "));
    sides_[3 - sides.size() + axis] = sides[axis];
  }
  const size_t values = 2 * sides.size();
  VT_CHECK(boxes.size() % values == 0,
           "[patching] boxes must have {} values each but got {} in all", values, boxes.size());
  leaves_.reserve(boxes.size() / values);
  for (size_t i = 0; i < boxes.size(); i += values)
    leaves_.push_back(read_leaf(boxes.subspan(i, values), sides));
}

}  // namespace vitrail::patching
