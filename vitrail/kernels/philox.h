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

}  // namespace vitrail::kernels
