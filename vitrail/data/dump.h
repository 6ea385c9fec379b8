#pragma once
/// The first samples of the global sequence as tensors, for `vitrail data dump`.

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/data/loader.h"

namespace vitrail::data {

/// Shapes   n samples of one rank, k axes of a file (3 for slices of volumes): image float [n, C,
///          sides...]; label int64 [n], masks [n, sides...], values float [n, V] or [n, V, sides...];
///          index, source int64 [n]; origin int64 [n, k], where the sample starts in its file before
///          augmentation (zero: whole files). Files of fewer axes leave the first entries zero.
///          Undefined where no sample has any: boxes float [n, M, 4] and box_classes int64 [n, M];
///          label_other int64 [n] and label_share float [n] of mixed samples.
struct Dump {
  at::Tensor image, label, index, source, origin;
  at::Tensor boxes, box_classes, label_other, label_share;
};

/// Samples 0 .. count-1 of the sequence that begins with `epoch` (and goes on with the next ones);
/// of these, the part that rank options.data_rank of options.data_ranks gets, in its order. Over
/// all ranks it is the same sequence. The samples are as the model gets them: augmented, in its size.
/// throws   as Loader; ConfigError for batches of different variables (Mixing::batch and rank).
Dump dump(const std::vector<config::Source>& sources, const config::Model& model,
          const LoaderOptions& options, int64_t epoch, int64_t count);

/// One safetensors file with the names of what is defined in a Dump.
void write(const Dump& dump, const std::string& path);

}  // namespace vitrail::data
