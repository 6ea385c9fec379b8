#include "vitrail/data/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "vitrail/data/gather.h"
#include "vitrail/data/resize_rows.h"

namespace vitrail::data {
namespace {

/// In float throughout, as ATen's CPU kernel computes it: a double would move the centres by more
/// than the rounding of the pixels.
AxisFilter make_filter(int64_t input, int64_t output) {
  AxisFilter filter;
  const float scale = static_cast<float>(input) / static_cast<float>(output);
  const float support = std::max(scale, 1.0f);
  const float inverse = 1.0f / support;
  filter.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  filter.weights.assign(static_cast<size_t>(output * filter.stride), 0.0f);
  for (int64_t i = 0; i < output; ++i) {
    const float center = scale * (static_cast<float>(i) + 0.5f);
    const int64_t low = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5f), 0);
    const int64_t high = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5f), input);
    float* weight = filter.weights.data() + i * filter.stride;
    float total = 0.0f;
    for (int64_t j = low; j < high; ++j) {
      const float distance = std::abs((static_cast<float>(j) - center + 0.5f) * inverse);
      weight[j - low] = std::max(1.0f - distance, 0.0f);
      total += weight[j - low];
    }
    for (int64_t j = 0; j < high - low; ++j) weight[j] /= total;
    filter.first.push_back(low);
    filter.taps.push_back(high - low);
  }
  return filter;
}

/// Values [sides..., channels], the last axis and the channels without gaps.
template <class T>
struct View {
  const T* values;
  std::vector<int64_t> sides, strides;
  int64_t channels;

  size_t last() const { return sides.size() - 1; }
  /// Where row `row` of the axes before `axis` begins.
  int64_t offset(int64_t row, size_t axis) const {
    int64_t result = 0;
    while (axis-- > 0) {
      result += row % sides[axis] * strides[axis];
      row /= sides[axis];
    }
    return result;
  }
};

View<float> whole(const float* values, const std::vector<int64_t>& sides, int64_t channels) {
  return {values, sides, strides_of(sides, channels), channels};
}

int64_t product(const std::vector<int64_t>& sides, size_t first, size_t last) {
  int64_t result = 1;
  for (size_t i = first; i < last; ++i) result *= sides[i];
  return result;
}

/// Along an axis before the last: the inner loop runs over the pixels of a row.
template <class T>
void filter_axis(const View<T>& view, size_t axis, const AxisFilter& filter, float* out) {
  const auto results = static_cast<int64_t>(filter.first.size());
  const int64_t run = view.sides.back() * view.channels;
  const int64_t outer = product(view.sides, 0, axis);
  const int64_t between = product(view.sides, axis + 1, view.last());
  std::vector<int64_t> rows(static_cast<size_t>(between));
  const View<T> inner{view.values,
                      {view.sides.begin() + static_cast<int64_t>(axis) + 1, view.sides.end()},
                      {view.strides.begin() + static_cast<int64_t>(axis) + 1, view.strides.end()},
                      view.channels};
  for (int64_t m = 0; m < between; ++m)
    rows[static_cast<size_t>(m)] = inner.offset(m, inner.last());
  for (int64_t o = 0; o < outer; ++o) {
    const T* base = view.values + view.offset(o, axis);
    for (size_t i = 0; i < static_cast<size_t>(results); ++i) {
      const T* from = base + filter.first[i] * view.strides[axis];
      const float* weights = filter.weights.data() + static_cast<int64_t>(i) * filter.stride;
      for (const int64_t row : rows) {
        filter_column(from + row, view.strides[axis], weights, filter.taps[i], out, run);
        out += run;
      }
    }
  }
}

/// Along the last axis, where neighbours are weighted differently: several rows at once instead.
template <class T>
void filter_last(const View<T>& view, const AxisFilter& filter, float* out) {
  static thread_local std::vector<float> scratch;
  const int64_t rows = product(view.sides, 0, view.last());
  const int64_t pixels = view.sides.back();
  const int64_t run = static_cast<int64_t>(filter.first.size()) * view.channels;
  scratch.resize(static_cast<size_t>(kRowLanes * pixels * view.channels));
  for (int64_t row = 0; row < rows; row += kRowLanes) {
    const int64_t n = std::min(kRowLanes, rows - row);
    const T* in[kRowLanes];
    float* to[kRowLanes];
    for (int64_t r = 0; r < n; ++r) {
      in[r] = view.values + view.offset(row + r, view.last());
      to[r] = out + (row + r) * run;
    }
    filter_rows(in, n, pixels, view.channels, filter, to, scratch.data());
  }
}

template <class T>
void copy_rows(const View<T>& view, float* out) {
  const int64_t run = view.sides.back() * view.channels;
  for (int64_t row = 0; row < product(view.sides, 0, view.last()); ++row, out += run)
    std::copy_n(view.values + view.offset(row, view.last()), run, out);
}

/// Memory between axes, used again by the thread's next image; two parts in turns.
class Scratch {
 public:
  float* part(size_t axis, int64_t count) {
    std::vector<float>& values = parts_[axis % 2];
    if (static_cast<int64_t>(values.size()) < count) values.resize(static_cast<size_t>(count));
    return values.data();
  }
  void shrink() {
    constexpr size_t kKept = size_t{16} << 20;
    for (std::vector<float>& values : parts_)
      if (values.size() > kKept) values = {};
  }

 private:
  std::array<std::vector<float>, 2> parts_;
};

template <class T>
void filter_axes(const View<T>& view, const std::vector<int64_t>& sides, size_t axis, float* result,
                 Scratch& scratch) {
  while (axis < sides.size() && view.sides[axis] == sides[axis]) ++axis;
  if (axis == sides.size()) return copy_rows(view, result);
  std::vector<int64_t> filtered = view.sides;
  filtered[axis] = sides[axis];
  const int64_t count = product(filtered, 0, sides.size()) * view.channels;
  float* const to = filtered == sides ? result : scratch.part(axis, count);
  const AxisFilter filter = make_filter(view.sides[axis], sides[axis]);
  if (axis == view.last())
    filter_last(view, filter, to);
  else
    filter_axis(view, axis, filter, to);
  // The first axis comes first: its runs are the longest, and it leaves fewer rows for the last.
  if (to != result)
    filter_axes(whole(to, filtered, view.channels), sides, axis + 1, result, scratch);
}

}  // namespace

void resize(const Pixels& pixels, const std::vector<int64_t>& origin,
            const std::vector<int64_t>& extent, const std::vector<int64_t>& sides, Pixels& result) {
  static thread_local Scratch scratch;
  const std::vector<int64_t> strides = strides_of(pixels.sides, pixels.channels);
  int64_t offset = 0;
  for (size_t axis = 0; axis < origin.size(); ++axis) offset += origin[axis] * strides[axis];
  result.sides = sides;
  result.channels = pixels.channels;
  result.full_scale = pixels.full_scale;
  result.values.clear();
  result.floats.resize(static_cast<size_t>(product(sides, 0, sides.size()) * pixels.channels));
  with_values(pixels, [&](const auto& values) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    const View<Value> view{values.data() + offset, extent, strides, pixels.channels};
    filter_axes(view, sides, 0, result.floats.data(), scratch);
  });
  scratch.shrink();
}

Pixels resize(const Pixels& pixels, const std::vector<int64_t>& sides) {
  Pixels result;
  resize(pixels, std::vector<int64_t>(pixels.sides.size(), 0), pixels.sides, sides, result);
  return result;
}

Mask resize(const Mask& mask, const std::vector<int64_t>& sides) {
  Mask result = mask;
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    if (result.sides[axis] == sides[axis]) continue;
    const int64_t from = result.sides[axis], to = sides[axis];
    const int64_t outer = product(result.sides, 0, axis);
    const int64_t inner = product(result.sides, axis + 1, sides.size());
    std::vector<int32_t> picked;
    picked.reserve(static_cast<size_t>(outer * to * inner));
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < to; ++i) {
        const auto row =
            result.classes.begin() + (o * from + (2 * i + 1) * from / (2 * to)) * inner;
        picked.insert(picked.end(), row, row + inner);
      }
    result.classes = std::move(picked);
    result.sides[axis] = to;
  }
  return result;
}

}  // namespace vitrail::data
