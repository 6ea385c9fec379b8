#pragma once
/// The division of a state's bytes over the ranks that hold them, and the files that result.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/core/dtype.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// throws CheckpointError with `name` for a dtype that files cannot hold.
core::DType dtype_of(const at::Tensor& tensor, const std::string& name);

/// Elements [start, start + count) of pieces[piece], counted from the piece's own first.
struct Share {
  size_t piece = 0;
  int64_t start = 0;
  int64_t count = 0;
  int64_t bytes = 0;
};

/// What this rank writes of its pieces: of those that `copies.count` ranks hold, the bytes of all, largest elements
/// first and then in the order given, are cut into so many equal lengths at element boundaries, and rank `copies.index`
/// takes one. Over all ranks every element appears once.
std::vector<Share> even_share(const std::vector<StatePiece>& pieces);

/// The elements of a share, in the whole tensor.
parallel::BoxRange range_of(const StatePiece& piece, const Share& share);

/// A range's name and shape in a rank's file: "NAME" for a whole tensor, "NAME[0:64,8:16]" for a whole box, and, flat,
/// "NAME[start:end]" or "NAME[0:64,8:16][start:end]" for a part of one.
io::TensorToWrite file_entry(const std::string& name, core::DType dtype,
                             const std::vector<int64_t>& shape, const parallel::BoxRange& range);
/// The head of a rank's file that holds the shares in this order.
io::SafetensorsLayout file_layout(const std::vector<StatePiece>& pieces,
                                  const std::vector<Share>& shares, int64_t step,
                                  const std::string& path);
/// "rank-00001.safetensors"
std::string rank_file_name(int rank);

}  // namespace vitrail::train
