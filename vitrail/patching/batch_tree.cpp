// Trees over batches, and all steps of adaptive patching.

#include <algorithm>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/adaptive.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/stream.h"
#include "vitrail/patching/tree_device.h"
#include "vitrail/patching/tree_division.h"

namespace vitrail::patching {
namespace {

/// What is to be divided, whatever it is divided by.
struct Job {
  const TreeShape& shape;
  int64_t batch, count, value_floor;
  Order order;
};

template <class Score>
at::Tensor divided_on_device(const Job& job, const LevelScores<Score>& scores,
                             const at::Device& device) {
  const auto numbers = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor scratch = at::empty({2, job.batch, job.count}, numbers);
  const at::Tensor keys = at::empty({job.batch, job.count}, numbers);
  void* stream = current_stream(keys.device());
  divide_cells(job.shape, scores, job.batch, job.count, job.value_floor, job.order,
               scratch.mutable_data_ptr<int64_t>(), keys.mutable_data_ptr<int64_t>(), stream);
  const at::Tensor sorted = std::get<0>(at::sort(keys, -1)).contiguous();
  at::Tensor boxes =
      at::empty({job.batch, job.count, 2 * job.shape.axes}, numbers.dtype(at::kFloat));
  write_boxes(job.shape, job.order, sorted.const_data_ptr<int64_t>(), job.batch * job.count,
              boxes.mutable_data_ptr<float>(), stream);
  return boxes;
}

/// keys_of(b) of each sample, to boxes.
template <class KeysOf>
at::Tensor divided_on_host(const Job& job, KeysOf&& keys_of) {
  at::Tensor boxes = at::empty({job.batch, job.count, 2 * job.shape.axes}, at::kFloat);
  auto* out = boxes.mutable_data_ptr<float>();
  const auto row = static_cast<size_t>(job.count * 2 * job.shape.axes);
  at::parallel_for(0, job.batch, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      write_boxes(job.shape, job.order, keys_of(b),
                  std::span(out + static_cast<size_t>(b) * row, row));
  });
  return boxes;
}

void check_count(int64_t count) {
  VT_CHECK(count >= 1 && count < INT32_MAX,
           "[patching] a sample must have 1 to 2^31 - 2 leaves but got {}", count);
}

at::Tensor boxes_on_device(const at::Tensor& importance, const Job& job) {
  const c10::DeviceGuard guard(importance.device());
  int64_t* levels[kMostLevels]{};
  LevelScores<int64_t> scores;
  std::vector<at::Tensor> sums;
  for (int32_t level = 1; level <= job.shape.top; ++level) {
    sums.push_back(at::empty({job.batch * job.shape.cells(level)},
                             at::TensorOptions().dtype(at::kLong).device(importance.device())));
    scores.levels[level] = levels[level] = sums.back().mutable_data_ptr<int64_t>();
  }
  sum_cells(importance.const_data_ptr<uint8_t>(), job.batch, job.shape, levels,
            current_stream(importance.device()));
  return divided_on_device(job, scores, importance.device());
}

/// Level l is 2^(top - l) times as fine as the last.
void check_levels(const std::vector<at::Tensor>& scores) {
  VT_CHECK(!scores.empty() && scores.back().dim() >= 3 && scores.back().dim() <= 4,
           "[patching] scores must be of at least one level, each [B, cells...] of 2 or 3 axes");
  for (size_t level = 0; level < scores.size(); ++level) {
    const at::Tensor& fine = scores[level];
    bool fits = fine.scalar_type() == at::kFloat && fine.device() == scores.back().device() &&
                fine.dim() == scores.back().dim() && fine.size(0) == scores.back().size(0);
    for (int64_t axis = 1; fits && axis < fine.dim(); ++axis)
      fits = fine.size(axis) == scores.back().size(axis) << (scores.size() - 1 - level);
    VT_CHECK(fits,
             "[patching] scores of level {} must be floats with twice the cells of the next level "
             "along each axis, on one device, but got {} under {}",
             level, fmt::join(fine.sizes(), " x "), fmt::join(scores.back().sizes(), " x "));
  }
}

/// [B, C, ...] to [B C, 1, ...].
at::Tensor apart(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[0] *= shape[1];
  shape[1] = 1;
  return tensor.contiguous().view(shape);
}

at::Tensor beside(const at::Tensor& rows, const at::Tensor& image) {
  return rows.defined() ? rows.to(image.device()).contiguous() : rows;
}

LeafTensors leaves_of(const at::Tensor& image, const at::Tensor& range_BC2,
                      const LeafOptions& options, const at::Tensor& edges_B3,
                      const at::Tensor& importance) {
  at::Tensor map = importance;
  if (!map.defined()) {
    const at::Tensor bytes = to_bytes(image.detach().contiguous(), beside(range_BC2, image));
    map = importance_maps(bytes, options, beside(edges_B3, image));
  }
  const at::Tensor boxes = leaf_boxes(map, options);
  return {serialise(image, boxes, options.patch_size, options.resample), boxes};
}

/// As patchify does it, sample after sample on the CPU.
LeafTensors leaves_on_host(const at::Tensor& image, const at::Tensor& range_BC2,
                           const LeafOptions& options, const at::Tensor& edges_B3) {
  VT_CHECK(edges_B3.defined() && edges_B3.numel() == 3 * image.size(0),
           "[patching] {} images need as many rows of edge options", image.size(0));
  const at::Tensor pixels = image.detach().to(at::kCPU).contiguous();
  const at::Tensor range = range_BC2.defined() ? range_BC2.to(at::kCPU).contiguous() : range_BC2;
  const at::Tensor edges = edges_B3.to(at::kCPU).contiguous();
  const int64_t batch = image.size(0), channels = image.size(1), axes = image.dim() - 2;
  const std::vector<int64_t> sides(image.sizes().begin() + 2, image.sizes().end());
  int64_t patch_pixels = 1;
  for (int64_t axis = 0; axis < axes; ++axis) patch_pixels *= options.patch_size;
  LeafTensors leaves{at::empty({batch, channels, options.fixed_length, patch_pixels}, at::kFloat),
                     at::empty({batch, options.fixed_length, 2 * axes}, at::kFloat)};
  const auto row = [batch]<class T>(T* data, const at::Tensor& tensor, int64_t b) {
    const int64_t values = tensor.numel() / batch;
    return std::span<T>(data + b * values, static_cast<size_t>(values));
  };
  const auto* in = pixels.const_data_ptr<float>();
  const auto* edge_rows = edges.const_data_ptr<int32_t>();
  auto* tokens = leaves.tokens.mutable_data_ptr<float>();
  auto* boxes = leaves.boxes.mutable_data_ptr<float>();
  at::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      patchify(
          row(in, pixels, b), channels, sides,
          range.defined() ? row(range.const_data_ptr<float>(), range, b) : std::span<const float>(),
          options, {edge_rows[3 * b], edge_rows[3 * b + 1], edge_rows[3 * b + 2]},
          row(tokens, leaves.tokens, b), row(boxes, leaves.boxes, b));
  });
  return {leaves.tokens.to(image.device()), leaves.boxes.to(image.device())};
}

/// A tree for each channel: channels become samples and come back as more leaves of one channel.
LeafTensors leaves_per_channel(const at::Tensor& image, const at::Tensor& range_BC2,
                               LeafOptions options, const at::Tensor& edges_B3,
                               const at::Tensor& importance) {
  const int64_t batch = image.size(0), channels = image.size(1);
  VT_CHECK(!importance.defined() && options.importance != Importance::given,
           "[patching] a tree for each channel needs importance of each but got one map for all");
  options.per_channel = false;
  const at::Tensor edges = edges_B3.defined() ? edges_B3.repeat_interleave(channels, 0) : edges_B3;
  const LeafTensors leaves =
      make_leaves(apart(image), apart(range_BC2), options, edges, importance);
  return {leaves.tokens.view({batch, 1, channels * leaves.tokens.size(2), leaves.tokens.size(3)}),
          leaves.boxes.view({batch, channels * leaves.boxes.size(1), leaves.boxes.size(2)})};
}

}  // namespace

at::Tensor leaf_boxes(const at::Tensor& importance, const LeafOptions& options) {
  VT_CHECK(
      (importance.dim() == 3 || importance.dim() == 4) && importance.scalar_type() == at::kByte,
      "[patching] importance must be bytes [B, sides...] of 2 or 3 sides but got {}",
      fmt::join(importance.sizes(), " x "));
  check_count(options.fixed_length);
  const TreeShape shape =
      tree_shape({importance.sizes().begin() + 1, importance.sizes().end()}, options.min_leaf);
  const Job job{shape, importance.size(0), options.fixed_length, options.value_floor,
                options.order};
  const at::Tensor maps = importance.contiguous();
  if (!maps.is_cpu()) return boxes_on_device(maps, job);
  const auto* bytes = maps.const_data_ptr<uint8_t>();
  const auto pixels = static_cast<size_t>(job.batch > 0 ? maps[0].numel() : 0);
  return divided_on_host(job, [&](int64_t b) {
    const SumPyramid sums({bytes + static_cast<size_t>(b) * pixels, pixels}, shape);
    return divided(shape, sums.scores(), job.count, job.value_floor, job.order);
  });
}

at::Tensor divide(const std::vector<at::Tensor>& scores, int64_t min_leaf, int64_t count,
                  Order order) {
  check_levels(scores);
  check_count(count);
  const at::Tensor& last = scores.back();
  const TreeShape shape = forest_shape({last.sizes().begin() + 1, last.sizes().end()}, min_leaf,
                                       static_cast<int32_t>(scores.size()) - 1);
  const int64_t first = shape.cells(shape.top), more = (int64_t{1} << shape.axes) - 1;
  VT_CHECK(count >= first && count <= shape.cells(0) && (count - first) % more == 0,
           "[patching] division of {} cells must end with {} + n * {} leaves, at most {}, but got "
           "{}",
           first, first, more, shape.cells(0), count);
  const Job job{shape, last.size(0), count, -1, order};
  std::vector<at::Tensor> held;
  LevelScores<float> levels;
  for (size_t level = 0; level < scores.size(); ++level) {
    held.push_back(scores[level].detach().contiguous());
    levels.levels[level] = held.back().const_data_ptr<float>();
  }
  if (!last.is_cpu()) {
    const c10::DeviceGuard guard(last.device());
    return divided_on_device(job, levels, last.device());
  }
  return divided_on_host(job, [&](int64_t b) {
    LevelScores<float> row = levels;
    for (int32_t level = 0; level <= shape.top; ++level)
      row.levels[level] += b * shape.cells(level);
    return divided(shape, row, count, -1, order);
  });
}

LeafTensors make_leaves(const at::Tensor& image, const at::Tensor& range_BC2,
                        const LeafOptions& options, const at::Tensor& edges_B3,
                        const at::Tensor& importance) {
  VT_CHECK((image.dim() == 4 || image.dim() == 5) && image.scalar_type() == at::kFloat,
           "[patching] images must be floats [B, C, sides...] of 2 or 3 sides but got {}",
           fmt::join(image.sizes(), " x "));
  if (options.per_channel)
    return leaves_per_channel(image, range_BC2, options, edges_B3, importance);
  if (options.compat && !importance.defined())
    return leaves_on_host(image, range_BC2, options, edges_B3);
  return leaves_of(image, range_BC2, options, edges_B3, importance);
}

}  // namespace vitrail::patching
