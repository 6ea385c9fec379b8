#pragma once
/// Small models and batches for tests of training on several ranks.

#include <memory>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "vitrail/core/philox.h"
#include "vitrail/models/model.h"

namespace vitrail::testing {

/// Tiny tensors: a second thread only costs; the setting is the calling thread's own.
inline void use_one_thread() { at::set_num_threads(1); }

inline config::Model tiny_vit() {
  config::Model model;
  model.image_size = {8, 8};
  model.patch_size = 4;
  model.num_classes = 5;
  model.embed_dim = 32;
  model.depth = 4;
  model.num_heads = 2;
  model.drop_path_rate = 0.3;
  return model;
}

inline config::Model tiny_mae() {
  config::Model model = tiny_vit();
  model.kind.value = "mae";
  model.drop_path_rate = 0.0;
  model.decoder_embed_dim = 16;
  model.decoder_depth = 2;
  model.decoder_num_heads = 2;
  model.mask_ratio = 0.5;
  return model;
}

/// Samples [first, first + count) of an endless set.
inline data::Batch samples(int64_t first, int64_t count, int64_t classes = 5, int64_t side = 8) {
  data::Batch batch;
  batch.image = at::empty({count, 3, side, side}, at::kFloat);
  batch.label = at::empty({count}, at::kLong);
  batch.sample_ids = at::arange(first, first + count, at::TensorOptions().dtype(at::kLong));
  const int64_t values = 3 * side * side;
  for (int64_t b = 0; b < count; ++b) {
    for (int64_t e = 0; e < values; ++e)
      batch.image.data_ptr<float>()[b * values + e] =
          2.0f * core::uniform({.seed = 11}, static_cast<uint64_t>(first + b),
                               static_cast<uint32_t>(e)) -
          1.0f;
    batch.label.data_ptr<int64_t>()[b] =
        core::draw({.seed = 12}, static_cast<uint64_t>(first + b), 0) %
        static_cast<uint32_t>(classes);
  }
  return batch;
}

inline double largest(const at::Tensor& tensor) { return tensor.abs().max().item().toDouble(); }
/// Largest difference over the largest value.
inline double relative_difference(const at::Tensor& value, const at::Tensor& expected) {
  return largest(value - expected) / largest(expected);
}

}  // namespace vitrail::testing
