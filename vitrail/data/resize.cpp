#include "vitrail/data/resize.h"

#include <algorithm>
#include <cmath>

namespace vitrail::data {
namespace {

/// Result i of an axis is the sum of weights[i * stride + j] * input[first[i] + j] over j <
/// taps[i].
struct AxisFilter {
  int64_t stride = 0;
  std::vector<int64_t> first, taps;
  std::vector<float> weights;
};

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

/// input [outer, n, inner] -> output [outer, filter, inner]. The inner loop runs over contiguous
/// values.
template <class T>
void filter_axis(const T* input, float* output, int64_t outer, int64_t n, int64_t inner,
                 const AxisFilter& filter) {
  const auto results = static_cast<int64_t>(filter.first.size());
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < results; ++i) {
      float* to = output + (o * results + i) * inner;
      std::fill(to, to + inner, 0.0f);
      const T* from = input + (o * n + filter.first[static_cast<size_t>(i)]) * inner;
      const float* weight = filter.weights.data() + i * filter.stride;
      for (int64_t j = 0; j < filter.taps[static_cast<size_t>(i)]; ++j, from += inner)
        for (int64_t x = 0; x < inner; ++x) to[x] += weight[j] * static_cast<float>(from[x]);
    }
  }
}

int64_t product(const std::vector<int64_t>& sides, size_t first, size_t last) {
  int64_t result = 1;
  for (size_t i = first; i < last; ++i) result *= sides[i];
  return result;
}

}  // namespace

Pixels resize(const Pixels& pixels, const std::vector<int64_t>& sides) {
  Pixels result;
  result.sides = pixels.sides;
  result.channels = pixels.channels;
  result.full_scale = pixels.full_scale;
  // The first axis comes first: its inner run is the longest, and it leaves fewer rows for the
  // last.
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    if (result.sides[axis] == sides[axis]) continue;
    const int64_t n = result.sides[axis];
    const int64_t outer = product(result.sides, 0, axis);
    const int64_t inner = product(result.sides, axis + 1, sides.size()) * pixels.channels;
    const AxisFilter filter = make_filter(n, sides[axis]);
    std::vector<float> filtered(static_cast<size_t>(outer * sides[axis] * inner));
    with_values(result.is_float() ? result : pixels, [&](const auto& values) {
      filter_axis(values.data(), filtered.data(), outer, n, inner, filter);
    });
    result.floats = std::move(filtered);
    result.sides[axis] = sides[axis];
  }
  if (!result.is_float())
    with_values(pixels,
                [&](const auto& values) { result.floats.assign(values.begin(), values.end()); });
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
