#include "vitrail/data/augment_slots.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

using kernels::AugmentAxis;
using kernels::AugmentOp;
using kernels::AugmentSlot;

constexpr double kRadians = 3.14159265358979323846 / 180.0;

/// `sides` as those of a volume.
void put_sides(const std::vector<int64_t>& sides, int32_t* to) {
  to[0] = to[1] = to[2] = 1;
  for (size_t axis = 0; axis < sides.size(); ++axis)
    to[3 - sides.size() + axis] = static_cast<int32_t>(sides[axis]);
}

using Matrix3 = std::array<std::array<double, 3>, 3>;

Matrix3 times(const Matrix3& a, const Matrix3& b) {
  Matrix3 result{};
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j)
      for (size_t k = 0; k < 3; ++k) result[i][j] += a[i][k] * b[k][j];
  return result;
}

/// Turns the plane of two axes of (z, y, x).
Matrix3 turn(size_t from, size_t to, double degrees) {
  Matrix3 matrix{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  const double c = std::cos(degrees * kRadians), s = std::sin(degrees * kRadians);
  matrix[from][from] = matrix[to][to] = c;
  matrix[from][to] = -s;
  matrix[to][from] = s;
  return matrix;
}

}  // namespace

AugmentSlot& SlotWriter::next(AugmentOp op, const std::vector<int64_t>& result) {
  VT_CHECK(count_ < capacity_, "[data] an augmentation plan of {} slots is too small", capacity_);
  AugmentSlot& slot = slots_[count_++];
  std::memset(static_cast<void*>(&slot), 0, sizeof(slot));
  slot.op = op;
  slot.geometric_before = geometric_;
  put_sides(sides_, slot.in);
  put_sides(result, slot.out);
  if (kernels::is_geometric(op)) ++geometric_;
  sides_ = result;
  return slot;
}

void SlotWriter::add(AugmentOp op, double first, double second) {
  AugmentSlot& slot = next(op, sides_);
  slot.value[0] = static_cast<float>(first);
  slot.value[1] = static_cast<float>(second);
}

void SlotWriter::posterize(int32_t bits) {
  if (bits < 8) next(AugmentOp::posterize, sides_).number = bits;
}

void SlotWriter::noise(double std, uint16_t layer) {
  if (std == 0) return;
  AugmentSlot& slot = next(AugmentOp::noise, sides_);
  slot.value[0] = static_cast<float>(std);
  slot.flag = layer;
}

void SlotWriter::blur(int32_t axis, double sigma) {
  AugmentSlot& slot = next(AugmentOp::blur, sides_);
  const auto radius =
      std::min<int32_t>(static_cast<int32_t>(std::ceil(3 * sigma)), kernels::kBlurRadius);
  double total = 0;
  const auto bell = [&](int32_t k) { return std::exp(-0.5 * k * k / (sigma * sigma)); };
  for (int32_t k = -radius; k <= radius; ++k) total += bell(k);
  for (int32_t k = 0; k <= radius; ++k) slot.weight[k] = static_cast<float>(bell(k) / total);
  slot.flag = axis + 3 - static_cast<int32_t>(sides_.size());
  slot.number = radius;
}

void SlotWriter::gather(const std::vector<AxisMap>& axes) {
  bool is_identity = true;
  std::vector<int64_t> result;
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    const AxisMap& map = axes[axis];
    result.push_back(map.size);
    is_identity = is_identity && map.axis == axis && map.start == 0 && map.step == 1 &&
                  map.low == 0 && map.high == map.size && map.size == sides_[axis];
  }
  if (is_identity) return;
  AugmentSlot& slot = next(AugmentOp::gather, result);
  const size_t flat = 3 - axes.size();
  slot.axis[0] = {0, 0, 1, 0, 1};
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    const AxisMap& map = axes[axis];
    slot.axis[flat + axis] =
        AugmentAxis{static_cast<int32_t>(flat + map.axis), static_cast<int32_t>(map.start),
                    static_cast<int32_t>(map.step), static_cast<int32_t>(map.low),
                    static_cast<int32_t>(map.high)};
  }
}

void SlotWriter::affine(const PlaceMatrix& inverse, bool nearest) {
  AugmentSlot& slot = next(AugmentOp::affine, sides_);
  slot.flag = nearest ? 1 : 0;
  // The centre of an axis of n pixels lies at (n - 1) / 2 when the first pixel's centre is at 0.
  for (size_t row = 0; row < 3; ++row) {
    double shift = inverse[4 * row + 3] + 0.5 * (slot.in[row] - 1);
    for (size_t column = 0; column < 3; ++column) {
      shift -= inverse[4 * row + column] * 0.5 * (slot.in[column] - 1);
      slot.matrix[4 * row + column] = static_cast<float>(inverse[4 * row + column]);
    }
    slot.matrix[4 * row + 3] = static_cast<float>(shift);
  }
}

void SlotWriter::window(const CropBox& box, const std::vector<int64_t>& result) {
  AugmentSlot& slot = next(AugmentOp::window, result);
  put_sides(box.sides, slot.box + 3);
  for (size_t axis = 0; axis < box.origin.size(); ++axis)
    slot.box[3 - box.origin.size() + axis] = static_cast<int32_t>(box.origin[axis]);
}

PlaceMatrix inverse_affine(double degrees, std::array<double, 2> move_xy, double scale,
                           std::array<double, 2> shear_xy, std::array<double, 2> about_xy) {
  const double turned = degrees * kRadians;
  const double shear_x = shear_xy[0] * kRadians, shear_y = shear_xy[1] * kRadians;
  const double a = std::cos(turned - shear_y) / std::cos(shear_y);
  const double b =
      -std::cos(turned - shear_y) * std::tan(shear_x) / std::cos(shear_y) - std::sin(turned);
  const double c = std::sin(turned - shear_y) / std::cos(shear_y);
  const double d =
      -std::sin(turned - shear_y) * std::tan(shear_x) / std::cos(shear_y) + std::cos(turned);
  const double x_of_x = d / scale, x_of_y = -b / scale, y_of_x = -c / scale, y_of_y = a / scale;
  const double x = -about_xy[0] - move_xy[0], y = -about_xy[1] - move_xy[1];
  return {1, 0,      0,      0,
          0, y_of_y, y_of_x, y_of_x * x + y_of_y * y + about_xy[1],
          0, x_of_y, x_of_x, x_of_x * x + x_of_y * y + about_xy[0]};
}

PlaceMatrix inverse_affine(const std::array<double, 3>& degrees_zyx,
                           const std::array<double, 3>& move_zyx, double scale, double shear_x) {
  // The inverse of turns is the turns back, in the other order.
  Matrix3 back = times(turn(0, 1, -degrees_zyx[2]),
                       times(turn(0, 2, -degrees_zyx[1]), turn(1, 2, -degrees_zyx[0])));
  Matrix3 unshear{{{1, 0, 0}, {0, 1, 0}, {0, std::tan(shear_x * kRadians), 1}}};
  back = times(unshear, back);
  PlaceMatrix result{};
  for (size_t row = 0; row < 3; ++row)
    for (size_t column = 0; column < 3; ++column) {
      result[4 * row + column] = back[row][column] / scale;
      result[4 * row + 3] -= result[4 * row + column] * move_zyx[column];
    }
  return result;
}

}  // namespace vitrail::data
