#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/patching/tree_device.h"

namespace vitrail::patching {
namespace {

using kernels::check_launch;
using kernels::grid_size;

constexpr int kThreads = 256, kWarp = 32;

__device__ int64_t first_item() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ int64_t item_stride() { return int64_t{gridDim.x} * blockDim.x; }

/// The part of a cell that lies in the image.
struct CellBox {
  const uint8_t* first;
  int64_t extent[3];
};

__device__ CellBox box_of(const uint8_t* image, const TreeShape& shape, const Cell& cell) {
  const int64_t edge = shape.min_leaf << cell.level;
  CellBox box;
  int64_t index = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t low = cell.at[axis] * edge, rest = shape.sides[axis] - low;
    box.extent[axis] = rest < edge ? rest : edge;
    index = index * shape.sides[axis] + low;
  }
  box.first = image + index;
  return box;
}

/// The share of lane `lane` of kGroup, which go along a row together, and over rows where a row is
/// short. Words of four bytes when rows may be read so.
template <int kGroup>
__device__ int64_t sum_of(const CellBox& box, const TreeShape& shape, bool has_words, int lane) {
  const int64_t width = has_words ? box.extent[2] / 4 : box.extent[2];
  int along = kGroup;  // lanes along a row
  while (along > 1 && along / 2 >= width) along /= 2;
  const int64_t rows = box.extent[0] * box.extent[1];
  int64_t sum = 0;
  for (int64_t row = lane / along; row < rows; row += kGroup / along) {
    const int64_t z = row / box.extent[1], y = row % box.extent[1];
    const uint8_t* bytes = box.first + (z * shape.sides[1] + y) * shape.sides[2];
    uint32_t row_sum = 0;
    if (has_words) {
      const auto* words = reinterpret_cast<const uint32_t*>(bytes);
      for (int64_t x = lane % along; x < width; x += along)
        row_sum = __dp4a(words[x], 0x01010101u, row_sum);
    } else {
      for (int64_t x = lane % along; x < width; x += along) row_sum += bytes[x];
    }
    sum += row_sum;
  }
  return sum;
}

/// Level 1; kGroup threads a cell.
template <int kGroup>
__global__ void __launch_bounds__(kThreads)
    sum_finest(const uint8_t* importance, int64_t batch, const __grid_constant__ TreeShape shape,
               bool has_words, int64_t* sums) {
  const int64_t cells = shape.cells(1), pixels = shape.sides[0] * shape.sides[1] * shape.sides[2];
  const int lane = static_cast<int>(threadIdx.x % kGroup);
  for (int64_t i = first_item() / kGroup; i < batch * cells; i += item_stride() / kGroup) {
    const CellBox box =
        box_of(importance + i / cells * pixels, shape, cell_at(shape, 1, i % cells));
    int64_t sum = sum_of<kGroup>(box, shape, has_words, lane);
    for (int offset = kGroup / 2; offset > 0; offset /= 2)
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) sums[i] = sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    sum_coarser(int64_t batch, const __grid_constant__ TreeShape shape, int32_t level,
                const int64_t* fine, int64_t* sums) {
  const int64_t cells = shape.cells(level), fine_cells = shape.cells(level - 1);
  for (int64_t i = first_item(); i < batch * cells; i += item_stride()) {
    const Cell cell = cell_at(shape, level, i % cells);
    const Parts parts = parts_of(shape, cell);
    int64_t sum = 0;
    for (int32_t part = 0; part < parts.count(); ++part)
      sum += fine[i / cells * fine_cells + index_of(shape, child_of(cell, parts, part))];
    sums[i] = sum;
  }
}

/// The leaf that is divided next: largest rank, then largest place (~name); rank 0 = none.
struct Best {
  uint64_t rank, place;

  __device__ void take(uint64_t other_rank, uint64_t other_place) {
    if (other_rank < rank || (other_rank == rank && other_place <= place)) return;
    rank = other_rank;
    place = other_place;
  }
};

__device__ Best best_of_warp(Best best) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const uint64_t rank = __shfl_xor_sync(0xFFFFFFFFu, best.rank, offset);
    const uint64_t place = __shfl_xor_sync(0xFFFFFFFFu, best.place, offset);
    best.take(rank, place);
  }
  return best;
}

/// One block a sample. Leaf i belongs to thread i % blockDim.x, which alone reads and writes its rank
/// and name and keeps the best of its leaves; so a division costs two barriers and a scan of one
/// thread's leaves. Rank 0: minimal, below the floor, or with too many children for the room left.
template <class Score>
class Division {
 public:
  __device__ Division(const TreeShape& shape, const LevelScores<Score>& scores, int32_t most,
                      int64_t value_floor, uint64_t* ranks, uint64_t* names)
      : shape_(shape),
        scores_(scores),
        value_floor_(value_floor),
        ranks_(ranks + blockIdx.x * int64_t{most}),
        names_(names + blockIdx.x * int64_t{most}),
        count_(static_cast<int32_t>(shape.cells(shape.top))),
        room_(most - count_) {}

  __device__ void run() {
    __shared__ Best warp_bests[kWarp];
    __shared__ uint64_t child_ranks[8], child_names[8];
    begin();
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int warps = static_cast<int>(blockDim.x) / kWarp;
    // All threads of a block keep the same count_ and room_, so they leave together.
    while (room_ > 0) {
      const Best of_warp = best_of_warp(best_);
      if (lane == 0) warp_bests[warp] = of_warp;
      __syncthreads();
      const Best parent = best_of_warp(lane < warps ? warp_bests[lane] : Best{0, 0});
      if (parent.rank == 0) break;
      const Cell cell = cell_of(shape_, ~parent.place);
      const Parts parts = parts_of(shape_, cell);
      const int32_t n = parts.count();
      room_ -= n - 1;
      if (static_cast<int32_t>(threadIdx.x) < n) {
        const Cell child = child_of(cell, parts, static_cast<int32_t>(threadIdx.x));
        child_ranks[threadIdx.x] = rank_of_leaf(child);
        child_names[threadIdx.x] = name_of(shape_, child);
      }
      __syncthreads();
      // Before the children, one of which may be this thread's and better than its parent.
      const bool was_mine = best_.rank == parent.rank && best_.place == parent.place;
      for (int32_t i = 1; i < n; ++i) store(count_ + i - 1, child_ranks[i], child_names[i]);
      count_ += n - 1;
      const bool is_tight = n > 1 && room_ < shape_.most_parts - 1;
      if (was_mine || is_tight) rescan(~parent.place, child_ranks[0], child_names[0], is_tight);
    }
  }

  __device__ void write_keys(Order order, int32_t most, int64_t* keys) const {
    keys += blockIdx.x * int64_t{most};
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < most; i += blockDim.x)
      keys[i] = i < count_ ? key_of(shape_, order, cell_of(shape_, names_[i])) : kNoKey;
  }

 private:
  __device__ bool fits(const Cell& cell) const {
    return parts_of(shape_, cell).count() - 1 <= room_;
  }

  __device__ uint64_t rank_of_leaf(const Cell& cell) const {
    const uint64_t rank = scores_.rank(shape_, blockIdx.x, cell, value_floor_);
    return rank != 0 && fits(cell) ? rank : 0;
  }

  __device__ void begin() {
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count_; i += blockDim.x) {
      const Cell cell = cell_at(shape_, shape_.top, i);
      store(i, rank_of_leaf(cell), name_of(shape_, cell));
    }
  }

  /// Leaf i, if it is this thread's.
  __device__ void store(int32_t i, uint64_t rank, uint64_t name) {
    if (i % static_cast<int32_t>(blockDim.x) != static_cast<int32_t>(threadIdx.x)) return;
    ranks_[i] = rank;
    names_[i] = name;
    if (rank != 0) best_.take(rank, ~name);
  }

  /// The best of this thread's leaves anew, with the first child in its parent's place. is_tight:
  /// leaves that no longer fit are passed over, for ever, as room never grows.
  __device__ void rescan(uint64_t parent, uint64_t child_rank, uint64_t child_name, bool is_tight) {
    best_ = {0, 0};
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count_; i += blockDim.x) {
      uint64_t rank = ranks_[i], name = names_[i];
      if (name == parent) {
        names_[i] = name = child_name;
        ranks_[i] = rank = child_rank;
      }
      if (rank == 0) continue;
      if (is_tight && !fits(cell_of(shape_, name)))
        ranks_[i] = 0;
      else
        best_.take(rank, ~name);
    }
  }

  const TreeShape& shape_;
  const LevelScores<Score>& scores_;
  int64_t value_floor_;
  uint64_t *ranks_, *names_;
  int32_t count_, room_;
  Best best_{0, 0};
};

template <class Score>
__global__ void __launch_bounds__(1024)
    divide(const __grid_constant__ TreeShape shape,
           const __grid_constant__ LevelScores<Score> scores, int32_t most, int64_t value_floor,
           Order order, uint64_t* ranks, uint64_t* names, int64_t* keys) {
  Division<Score> division(shape, scores, most, value_floor, ranks, names);
  division.run();
  division.write_keys(order, most, keys);
}

__global__ void __launch_bounds__(kThreads)
    write_leaf_boxes(const __grid_constant__ TreeShape shape, Order order, const int64_t* keys,
                     int64_t leaves, float* boxes) {
  for (int64_t i = first_item(); i < leaves; i += item_stride())
    write_box(shape, order, keys[i], boxes + i * 2 * shape.axes);
}

template <class Score>
void launch_divide(const TreeShape& shape, const LevelScores<Score>& scores, int64_t batch,
                   int64_t count, int64_t value_floor, Order order, int64_t* scratch, int64_t* keys,
                   void* stream) {
  if (batch == 0) return;
  auto* ranks = reinterpret_cast<uint64_t*>(scratch);
  const unsigned threads = count <= 256 ? 128 : count <= 2048 ? 256 : 1024;
  divide<<<static_cast<unsigned>(batch), threads, 0, static_cast<cudaStream_t>(stream)>>>(
      shape, scores, static_cast<int32_t>(count), value_floor, order, ranks, ranks + batch * count,
      keys);
  check_launch("divide_cells");
}

}  // namespace

void sum_cells(const uint8_t* importance, int64_t batch, const TreeShape& shape,
               int64_t* const* levels, void* stream) {
  if (batch == 0 || shape.top == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t cells = batch * shape.cells(1), edge = 2 * shape.min_leaf;
  // Rows of cells then begin at words; sides that are no multiple of the edge may end inside one.
  const bool has_words =
      edge % 4 == 0 && shape.sides[2] % 4 == 0 && reinterpret_cast<uintptr_t>(importance) % 4 == 0;
  if (edge <= 4)
    sum_finest<1><<<grid_size(cells, kThreads), kThreads, 0, on>>>(importance, batch, shape,
                                                                   has_words, levels[1]);
  else
    sum_finest<kWarp><<<grid_size(cells * kWarp, kThreads), kThreads, 0, on>>>(
        importance, batch, shape, has_words, levels[1]);
  check_launch("sum_cells");
  for (int32_t level = 2; level <= shape.top; ++level) {
    sum_coarser<<<grid_size(batch * shape.cells(level), kThreads), kThreads, 0, on>>>(
        batch, shape, level, levels[level - 1], levels[level]);
    check_launch("sum_cells");
  }
}

void divide_cells(const TreeShape& shape, const LevelScores<int64_t>& scores, int64_t batch,
                  int64_t count, int64_t value_floor, Order order, int64_t* scratch, int64_t* keys,
                  void* stream) {
  launch_divide(shape, scores, batch, count, value_floor, order, scratch, keys, stream);
}
void divide_cells(const TreeShape& shape, const LevelScores<float>& scores, int64_t batch,
                  int64_t count, int64_t value_floor, Order order, int64_t* scratch, int64_t* keys,
                  void* stream) {
  launch_divide(shape, scores, batch, count, value_floor, order, scratch, keys, stream);
}

void write_boxes(const TreeShape& shape, Order order, const int64_t* keys, int64_t leaves,
                 float* boxes, void* stream) {
  if (leaves == 0) return;
  write_leaf_boxes<<<grid_size(leaves, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      shape, order, keys, leaves, boxes);
  check_launch("write_boxes");
}

}  // namespace vitrail::patching
