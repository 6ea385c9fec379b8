#include "vitrail/data/gather.h"

namespace vitrail::data {

std::vector<int64_t> strides_of(const std::vector<int64_t>& sides, int64_t inner) {
  std::vector<int64_t> strides(sides.size());
  for (size_t axis = sides.size(); axis-- > 0; inner *= sides[axis]) strides[axis] = inner;
  return strides;
}

std::vector<AxisMap> axes_of(const Window& window) {
  std::vector<AxisMap> axes;
  for (size_t axis = 0; axis < window.sides.size(); ++axis)
    if (static_cast<int64_t>(axis) != window.slice_axis)
      axes.push_back({window.sides[axis], window.origin[axis], 1, 0, window.extent[axis], axis});
  return axes;
}

int64_t offset_of(const Window& window, const std::vector<int64_t>& strides) {
  if (window.slice_axis < 0) return 0;
  const auto axis = static_cast<size_t>(window.slice_axis);
  return window.origin[axis] * strides[axis];
}

int64_t source_row(int64_t row, const std::vector<AxisMap>& axes,
                   const std::vector<int64_t>& strides) {
  int64_t result = 0;
  for (size_t axis = axes.size() - 1; axis-- > 0;) {
    const AxisMap& map = axes[axis];
    const int64_t p = row % map.size;
    row /= map.size;
    if (p < map.low || p >= map.high) return -1;
    result += (map.start + map.step * p) * strides[map.axis];
  }
  return result;
}

Pixels cut(const Pixels& pixels, const Window& window, const std::vector<float>& fill) {
  Pixels result;
  result.sides = window.sample_sides();
  result.channels = pixels.channels;
  result.full_scale = pixels.full_scale;
  const std::vector<int64_t> strides = strides_of(pixels.sides, pixels.channels);
  const std::vector<AxisMap> axes = axes_of(window);
  const auto n = static_cast<size_t>(count(result.sides) * result.channels);
  const auto copy = [&](const auto& from, auto& to) {
    using Value = typename std::decay_t<decltype(from)>::value_type;
    to.resize(n);
    for (int64_t c = 0; c < pixels.channels; ++c)
      gather(
          from.data() + offset_of(window, strides) + c, strides, axes,
          static_cast<Value>(fill[static_cast<size_t>(c)]), [](Value value) { return value; },
          to.data() + c, pixels.channels);
  };
  if (pixels.is_float())
    copy(pixels.floats, result.floats);
  else
    copy(pixels.values, result.values);
  return result;
}

Mask cut(const Mask& mask, const Window& window) {
  Mask result{window.sample_sides(), {}};
  result.classes.resize(static_cast<size_t>(count(result.sides)));
  const std::vector<int64_t> strides = strides_of(mask.sides, 1);
  gather(
      mask.classes.data() + offset_of(window, strides), strides, axes_of(window), int32_t{-1},
      [](int32_t value) { return value; }, result.classes.data());
  return result;
}

}  // namespace vitrail::data
