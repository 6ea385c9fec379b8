#include <algorithm>
#include <array>
#include <cmath>

#include "vitrail/io/nifti.h"

namespace vitrail::io {
namespace {

using Matrix = NiftiGeometry::Matrix;

/// Rotation of a unit quaternion whose real part is what b, c and d leave (nifti1.h, method 2).
Matrix from_quaternion(const NiftiGeometry& g) {
  const auto [b, c, d] = g.quaternion;
  const double a = std::sqrt(std::max(0.0, 1.0 - (b * b + c * c + d * d)));
  const double rotation[3][3] = {
      {a * a + b * b - c * c - d * d, 2 * b * c - 2 * a * d, 2 * b * d + 2 * a * c},
      {2 * b * c + 2 * a * d, a * a + c * c - b * b - d * d, 2 * c * d - 2 * a * b},
      {2 * b * d - 2 * a * c, 2 * c * d + 2 * a * b, a * a + d * d - c * c - b * b}};
  Matrix result{};
  for (size_t row = 0; row < 3; ++row) {
    for (size_t axis = 0; axis < 3; ++axis)
      result[row][axis] =
          rotation[row][axis] * g.voxel_size[axis] * (axis == 2 && g.qfac < 0 ? -1 : 1);
    result[row][3] = g.offset[row];
  }
  return result;
}

}  // namespace

NiftiGeometry::Matrix NiftiGeometry::affine(const std::vector<int64_t>& sides) const {
  if (sform_code != 0) return sform;
  if (qform_code != 0) return from_quaternion(*this);
  Matrix result{};
  for (size_t axis = 0; axis < 3; ++axis) {
    result[axis][axis] = voxel_size[axis] * (axis == 0 ? -1 : 1);
    result[axis][3] = -result[axis][axis] * static_cast<double>(sides[2 - axis] - 1) / 2;
  }
  return result;
}

std::string NiftiGeometry::orientation(const std::vector<int64_t>& sides) const {
  const Matrix matrix = affine(sides);
  std::array<double, 3> length{};
  for (size_t axis = 0; axis < 3; ++axis)
    length[axis] = std::hypot(matrix[0][axis], matrix[1][axis], matrix[2][axis]);
  // Each axis gets the direction it is nearest to: the assignment of largest total.
  std::array<size_t, 3> order{0, 1, 2}, best = order;
  double best_total = -1;
  do {
    double total = 0;
    for (size_t axis = 0; axis < 3; ++axis)
      if (length[axis] > 0) total += std::abs(matrix[order[axis]][axis]) / length[axis];
    if (total > best_total) {
      best_total = total;
      best = order;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  std::string letters;
  for (size_t axis = 0; axis < 3; ++axis)
    letters += (matrix[best[axis]][axis] < 0 ? "LPI" : "RAS")[best[axis]];
  return letters;
}

}  // namespace vitrail::io
