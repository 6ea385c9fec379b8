#pragma once
/// Sample and Batch: all that models know of data.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::data {

/// One image or volume as the model will see it, before batching.
struct Sample {
  at::Tensor image;    // float [C, H, W] or [C, D, H, W]
  int64_t label = -1;  // class; -1 = none
  int64_t index = -1;  // global sample index: its place in the sorted list over all sources
  int64_t source = 0;  // which source
};

struct Batch {
  at::Tensor image;  // float [B, C, H, W] or [B, C, D, H, W]
  at::Tensor label;  // int64 [B]; undefined = no labels; -1 = padding of the last evaluation batch
  at::Tensor mask_noise;  // float [B, L]; undefined = drawn from the run's seed (mae)
  at::Tensor sample_ids;  // int64 [B] on image's device: global sample index, the place of every
                          // random draw
  int64_t epoch = 0;
  int64_t slot = 0;  // of the first sample in the epoch's global sequence

  int64_t size() const { return image.defined() ? image.size(0) : 0; }
};

}  // namespace vitrail::data
