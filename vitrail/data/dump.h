#pragma once
/// The first samples of the global sequence as tensors, for `vitrail data dump`.

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/data/loader.h"

namespace vitrail::data {

/// Shapes   n samples of one rank, k axes of a file (3 for slices of volumes): image float [n, C,
///          sides...]; label int64 [n], masks [n, sides...]; index, source int64 [n]; origin int64 [n,
///          k], where the sample starts in its file (zero: whole files). Files of fewer axes leave the
///          first entries zero.
struct Dump {
  at::Tensor image, label, index, source, origin;
};

/// Samples 0 .. count-1 of the sequence that begins with `epoch` (and goes on with the next ones);
/// of these, the part that rank options.data_rank of options.data_ranks gets, in its order. Over
/// all ranks it is the same sequence.
Dump dump(const std::vector<config::Source>& sources, const config::Model& model,
          const LoaderOptions& options, int64_t epoch, int64_t count);

/// One safetensors file with the five names of Dump.
void write(const Dump& dump, const std::string& path);

}  // namespace vitrail::data
