#pragma once
/// The even division of a state over ranks.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/core/dtype.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// throws CheckpointError with `name` for a dtype that files cannot hold.
core::DType dtype_of(const at::Tensor& tensor, const std::string& name);

/// Elements [start, start + count) of tensors[tensor].
struct Piece {
  size_t tensor = 0;
  int64_t start = 0;
  int64_t count = 0;
  int64_t bytes = 0;
};

/// The part of the state that `rank` of `size` writes: the bytes of all tensors, largest elements
/// first and then in the order given, cut into equal lengths at element boundaries. Over all ranks
/// every element appears once.
std::vector<Piece> even_share(const std::vector<TensorState>& tensors, int rank, int size);

}  // namespace vitrail::train
