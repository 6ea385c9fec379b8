#pragma once
/// Where a forward pass takes its random numbers from: the run's seed, the step, and the samples' global indices.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/core/philox.h"

namespace vitrail::nn {

struct Draws {
  uint64_t seed = 0;
  uint32_t step = 0;
  at::Tensor sample_ids;  // int64 [B], on the device of the activations
  bool training = false;  // false: dropouts and drop-path are the identity
  /// int32 [1] on the device of the activations: what draws read instead of `step` when they are made; undefined: `step`.
  at::Tensor step_place;

  core::DrawKey key(core::Stream stream, uint16_t layer) const {
    const void* place = step_place.defined() ? step_place.const_data_ptr() : nullptr;
    return {seed, stream, step, layer, static_cast<const uint32_t*>(place)};
  }
};

}  // namespace vitrail::nn
