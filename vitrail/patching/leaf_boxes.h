#pragma once
/// The boxes of a sample's leaves, checked and read as whole numbers of three axes.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::patching {

class LeafBoxes {
 public:
  struct Leaf {
    std::array<int64_t, 3> low, size;
  };

  /// boxes [L, 2k] over an image of k sides; an image is a volume of one plane.
  /// throws   Error for 1 or more than 3 sides, sides below 1, a span of another size, and boxes that
  ///          reach out of the image, end before they begin or lie between pixels.
  LeafBoxes(std::span<const float> boxes, std::span<const int64_t> sides);

  int64_t axes() const { return axes_; }
  int64_t count() const { return std::ssize(leaves_); }
  const std::array<int64_t, 3>& sides() const { return sides_; }
  const Leaf& leaf(int64_t i) const { return leaves_[static_cast<size_t>(i)]; }
  /// Without extent along some axis.
  bool is_padding(int64_t i) const {
    const std::array<int64_t, 3>& size = leaf(i).size;
    return size[0] == 0 || size[1] == 0 || size[2] == 0;
  }

 private:
  int64_t axes_;
  std::array<int64_t, 3> sides_{1, 1, 1};
  std::vector<Leaf> leaves_;
};

}  // namespace vitrail::patching
