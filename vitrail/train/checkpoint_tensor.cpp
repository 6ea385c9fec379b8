#include "vitrail/train/checkpoint_tensor.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::train {

namespace {

int64_t bytes_of(const StatePiece& piece) {
  return piece.range.count * core::size_bytes(piece.dtype);
}

/// The share of pieces[order...] that rank `index` of `count` writes.
void cut(const std::vector<StatePiece>& pieces, const std::vector<size_t>& order,
         const parallel::Copies& copies, std::vector<Share>& shares) {
  int64_t total = 0;
  for (const size_t index : order) total += bytes_of(pieces[index]);
  const int64_t size = copies.count;
  const auto boundary = [&](int64_t r) {
    return total / size * r + std::min<int64_t>(r, total % size);
  };
  const int64_t begin = boundary(copies.index), end = boundary(copies.index + 1);
  int64_t position = 0;
  for (const size_t index : order) {
    const int64_t width = core::size_bytes(pieces[index].dtype);
    const auto element_at =
        [&](int64_t byte) {  // first element that starts at or after `byte` of the whole
          return std::clamp<int64_t>((std::max<int64_t>(byte - position, 0) + width - 1) / width, 0,
                                     pieces[index].range.count);
        };
    const int64_t first = element_at(begin), last = element_at(end);
    if (last > first) shares.push_back({index, first, last - first, (last - first) * width});
    position += bytes_of(pieces[index]);
  }
}

}  // namespace

core::DType dtype_of(const at::Tensor& tensor, const std::string& name) {
  try {
    return ops::dtype_of(tensor.scalar_type());
  } catch (const core::Error& error) {
    core::fail<core::CheckpointError>("[checkpoint] tensor {}: {}", name, error.what());
  }
}

std::vector<Share> even_share(const std::vector<StatePiece>& pieces) {
  const auto width = [&](size_t index) { return core::size_bytes(pieces[index].dtype); };
  std::map<int, std::vector<size_t>> by_count;
  for (size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].copies.index >= 0) by_count[pieces[i].copies.count].push_back(i);
  std::vector<Share> shares;
  for (auto& [count, order] : by_count) {
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return width(a) > width(b); });
    cut(pieces, order, pieces[order[0]].copies, shares);
  }
  // Falling element sizes keep every piece aligned to its own element in the file.
  std::stable_sort(shares.begin(), shares.end(),
                   [&](const Share& a, const Share& b) { return width(a.piece) > width(b.piece); });
  return shares;
}

parallel::BoxRange range_of(const StatePiece& piece, const Share& share) {
  return {piece.range.box, piece.range.start + share.start, share.count};
}

io::TensorToWrite file_entry(const std::string& name, core::DType dtype,
                             const std::vector<int64_t>& shape, const parallel::BoxRange& range) {
  std::string text = name;
  const parallel::Box& box = range.box;
  if (!parallel::is_whole(box, shape)) {
    std::string sides;
    for (size_t axis = 0; axis < shape.size(); ++axis)
      sides += fmt::format("{}{}:{}", axis ? "," : "", box.start[axis],
                           box.start[axis] + box.shape[axis]);
    text += "[" + sides + "]";
  }
  if (range.count == box.count()) return {text, dtype, box.shape};
  text += fmt::format("[{}:{}]", range.start, range.start + range.count);
  return {text, dtype, {range.count}};
}

io::SafetensorsLayout file_layout(const std::vector<StatePiece>& pieces,
                                  const std::vector<Share>& shares, int64_t step,
                                  const std::string& path) {
  std::vector<io::TensorToWrite> entries;
  for (const Share& share : shares) {
    const StatePiece& piece = pieces[share.piece];
    entries.push_back(
        file_entry(piece.name, piece.dtype, piece.whole_shape, range_of(piece, share)));
  }
  return io::SafetensorsLayout::plan(entries, {{"vitrail_step", std::to_string(step)}}, path);
}

std::string rank_file_name(int rank) { return fmt::format("rank-{:05}.safetensors", rank); }

}  // namespace vitrail::train
