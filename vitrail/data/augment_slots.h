#pragma once
/// Writes the operations of one sample into the slots of its row.

#include <array>
#include <cstdint>
#include <vector>

#include "vitrail/data/augment.h"
#include "vitrail/kernels/augment.h"

namespace vitrail::data {

/// Linear part and shift of a map of places, in doubles; rows and columns z, y, x and then the shift.
using PlaceMatrix = std::array<double, 12>;

/// Slot after slot; operations that change nothing are left out.
class SlotWriter {
 public:
  SlotWriter(kernels::AugmentSlot* slots, int64_t capacity, std::vector<int64_t> sides)
      : slots_(slots), capacity_(capacity), sides_(std::move(sides)) {}

  const std::vector<int64_t>& sides() const { return sides_; }
  int32_t count() const { return count_; }
  int32_t geometric() const { return geometric_; }

  /// An operation with up to two numbers.
  void add(kernels::AugmentOp op, double first = 0, double second = 0);
  void posterize(int32_t bits);
  void noise(double std, uint16_t layer);
  void blur(int32_t axis, double sigma);
  /// Maps of the sides as they are now.
  void gather(const std::vector<AxisMap>& axes);
  /// `inverse` takes a result's place to the source's, both from the centre of the image in pixels.
  void affine(const PlaceMatrix& inverse, bool nearest);
  void window(const CropBox& box, const std::vector<int64_t>& result);

 private:
  kernels::AugmentSlot& next(kernels::AugmentOp op, const std::vector<int64_t>& result);

  kernels::AugmentSlot* slots_;
  int64_t capacity_;
  std::vector<int64_t> sides_;
  int32_t count_ = 0, geometric_ = 0;
};

/// torchvision's inverse affine matrix of 2 sides: turned clockwise by `degrees` around the centre,
/// scaled, sheared (degrees, along x and y), then moved; `about` is the centre's own place (x, y).
PlaceMatrix inverse_affine(double degrees, std::array<double, 2> move_xy, double scale,
                           std::array<double, 2> shear_xy, std::array<double, 2> about_xy = {0, 0});
/// The same for 3 sides: turned by degrees about the axes x, y and z in this order, scaled, moved.
PlaceMatrix inverse_affine(const std::array<double, 3>& degrees_zyx,
                           const std::array<double, 3>& move_zyx, double scale, double shear_x);

/// Adds one operation of RandAugment, TrivialAugment or AutoAugment, drawn from the step's policy.
void add_policy(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                SlotWriter& slots);

}  // namespace vitrail::data
