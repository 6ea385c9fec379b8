#pragma once
/// The even division of a state over ranks, and the bridge between ATen's dtypes and those of
/// files.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/core/dtype.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// throws CheckpointError naming `tensor` for a dtype that files cannot hold.
core::DType dtype_of(const at::Tensor& tensor, const std::string& name);
at::ScalarType scalar_type(core::DType dtype);

/// A tensor in a safetensors file; its bytes follow those of the one before.
struct FileTensor {
  std::string name;
  core::DType dtype = core::DType::f32;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};
/// Everything in a safetensors file before the first tensor; a multiple of 8 bytes long.
std::string safetensors_header(const std::vector<FileTensor>& tensors,
                               const std::map<std::string, std::string>& metadata);

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
