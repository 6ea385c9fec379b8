#pragma once
/// Fills a [batch, per_sample] buffer with uniforms that are a function of place: core::uniform for
/// many samples.
///
/// Needs    batch sample ids behind `sample_ids`, batch * per_sample floats behind `out`;
/// per_sample < 2^32. Devices  the CPU and the CUDA version give the same bits.

#include <cstdint>

#include "vitrail/core/philox.h"

namespace vitrail::kernels {

/// out[b * per_sample + e] = core::uniform(key, sample_ids[b], e), in [0, 1).
void philox_uniform_cpu(float* out, const int64_t* sample_ids, int64_t batch, int64_t per_sample,
                        const core::DrawKey& key);

/// The same on device pointers; asynchronous on `stream` (a cudaStream_t).
/// throws Error in a build without CUDA.
void philox_uniform(float* out, const int64_t* sample_ids, int64_t batch, int64_t per_sample,
                    const core::DrawKey& key, void* stream);

/// A part of a whole tensor of one sample: what is here of each axis, row-major; elements past the
/// end of the whole may be among it.
struct PhiloxWindow {
  static constexpr int kMaxAxes = 4;
  int axes = 0;
  int64_t extent[kMaxAxes] = {}, start[kMaxAxes] = {}, whole[kMaxAxes] = {};

  VT_HOST_DEVICE int64_t rows() const {
    int64_t product = 1;
    for (int axis = 0; axis + 1 < axes; ++axis) product *= extent[axis];
    return product;
  }
  VT_HOST_DEVICE int64_t row_length() const { return extent[axes - 1]; }
  /// Elements of a row that are inside the whole.
  VT_HOST_DEVICE int64_t row_inside() const {
    const int64_t left = whole[axes - 1] - start[axes - 1];
    return left < 0 ? 0 : left < row_length() ? left : row_length();
  }
  /// Place in the whole tensor of a row's first element; negative for a row past the end.
  VT_HOST_DEVICE int64_t row_start(int64_t row) const {
    int64_t element = start[axes - 1], stride = whole[axes - 1];
    for (int axis = axes - 2; axis >= 0; --axis) {
      const int64_t place = start[axis] + row % extent[axis];
      if (place >= whole[axis]) return -1;
      row /= extent[axis];
      element += place * stride;
      stride *= whole[axis];
    }
    return element;
  }
};

/// out[b][e] = core::uniform(key, sample_ids[b], place of e in the whole), -1 for elements past its
/// end.
/// Needs    at least one axis; the whole has < 2^32 elements.
void philox_uniform_window_cpu(float* out, const int64_t* sample_ids, int64_t batch,
                               const PhiloxWindow& window, const core::DrawKey& key);
void philox_uniform_window(float* out, const int64_t* sample_ids, int64_t batch,
                           const PhiloxWindow& window, const core::DrawKey& key, void* stream);

}  // namespace vitrail::kernels
