#include "vitrail/train/checkpoint_tensor.h"

#include <algorithm>
#include <numeric>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::train {

core::DType dtype_of(const at::Tensor& tensor, const std::string& name) {
  try {
    return ops::dtype_of(tensor.scalar_type());
  } catch (const core::Error& error) {
    core::fail<core::CheckpointError>("[checkpoint] tensor {}: {}", name, error.what());
  }
}

std::vector<Piece> even_share(const std::vector<TensorState>& tensors, int rank, int size) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Falling element sizes keep every piece aligned to its own element in the file.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].tensor.element_size() > tensors[b].tensor.element_size();
  });
  int64_t total = 0;
  for (const TensorState& state : tensors) total += static_cast<int64_t>(state.tensor.nbytes());
  const auto boundary = [&](int64_t r) {
    return total / size * r + std::min<int64_t>(r, total % size);
  };
  const int64_t begin = boundary(rank), end = boundary(rank + 1);

  std::vector<Piece> pieces;
  int64_t position = 0;
  for (const size_t index : order) {
    const at::Tensor& tensor = tensors[index].tensor;
    const auto width = static_cast<int64_t>(tensor.element_size());
    const auto element_at =
        [&](int64_t byte) {  // first element that starts at or after `byte` of the whole
          return std::clamp<int64_t>((std::max<int64_t>(byte - position, 0) + width - 1) / width, 0,
                                     tensor.numel());
        };
    const int64_t first = element_at(begin), last = element_at(end);
    if (last > first) pieces.push_back({index, first, last - first, (last - first) * width});
    position += static_cast<int64_t>(tensor.nbytes());
  }
  return pieces;
}

}  // namespace vitrail::train
