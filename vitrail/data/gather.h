#pragma once
/// Copies a sample out of an image through one index map per axis.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vitrail/data/augment.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// Steps between neighbours along each axis of row-major values, `inner` values a pixel.
std::vector<int64_t> strides_of(const std::vector<int64_t>& sides, int64_t inner);

/// The window's pixels of its file, one map per axis of the sample. A slice's axis has no map; its
/// place is offset_of.
std::vector<AxisMap> axes_of(const Window& window);
/// Where the window's slice starts; 0 without one.
int64_t offset_of(const Window& window, const std::vector<int64_t>& strides);

/// The place in the source that row `row` of the result comes from; -1 when it lies outside the
/// image. Rows count over all axes but the last.
int64_t source_row(int64_t row, const std::vector<AxisMap>& axes,
                   const std::vector<int64_t>& strides);

/// Row by row of the result: copy_row(first, step, count, to) writes `count` results, out_step apart,
/// of the values at first, first + step, ...; pixels outside the image become `fill`.
template <class In, class Out, class CopyRow>
void gather_rows(const In* in, const std::vector<int64_t>& strides,
                 const std::vector<AxisMap>& axes, Out fill, const CopyRow& copy_row, Out* out,
                 int64_t out_step = 1) {
  const AxisMap& last = axes.back();
  const int64_t step = last.step * strides[last.axis];
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < axes.size(); ++axis) rows *= axes[axis].size;
  for (int64_t row = 0; row < rows; ++row, out += last.size * out_step) {
    const int64_t from_row = source_row(row, axes, strides);
    const int64_t low = from_row < 0 ? last.size : last.low;
    const int64_t high = from_row < 0 ? last.size : last.high;
    for (int64_t p = 0; p < low; ++p) out[p * out_step] = fill;
    if (low < high)
      copy_row(in + from_row + last.start * strides[last.axis] + step * low, step, high - low,
               out + low * out_step);
    for (int64_t p = high; p < last.size; ++p) out[p * out_step] = fill;
  }
}

/// out[p * out_step] = convert(in at the place of result pixel p), or `fill` outside the image.
template <class In, class Out, class Convert>
void gather(const In* in, const std::vector<int64_t>& strides, const std::vector<AxisMap>& axes,
            Out fill, const Convert& convert, Out* out, int64_t out_step = 1) {
  const auto copy_row = [&](const In* from, int64_t step, int64_t count, Out* to) {
    for (int64_t p = 0; p < count; ++p) to[p * out_step] = convert(from[p * step]);
  };
  gather_rows(in, strides, axes, fill, copy_row, out, out_step);
}

/// The window alone, padded with the lowest value of the range, or with class -1.
Pixels cut(const Pixels& pixels, const Window& window, const std::vector<float>& fill);
Mask cut(const Mask& mask, const Window& window);

}  // namespace vitrail::data
