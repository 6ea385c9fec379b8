#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/patching/cuda/resample_taps.cuh"
#include "vitrail/patching/resample_gather.h"
#include "vitrail/patching/resample_votes.h"

namespace vitrail::patching {
namespace {

__device__ LabelBlock block_of(const LeafBatch& leaves, const LeafBox& box, int64_t b,
                               const int64_t* labels) {
  const int64_t row = leaves.sides[2], plane = leaves.sides[1] * row;
  return {labels + b * leaves.pixels() + box.low[0] * plane + box.low[1] * row + box.low[2], plane,
          row};
}

struct Place {
  int32_t z, y, x;
};
__device__ Place place_of(const LeafBatch& leaves, int32_t p) {
  const int32_t line = p / leaves.patch(2), z = line / leaves.patch(1);
  return {z, line - z * leaves.patch(1), p - line * leaves.patch(2)};
}

__global__ void __launch_bounds__(kThreads)
    label_leaves(LabelRule rule, LeafBatch leaves, const int64_t* labels, int64_t* out) {
  const int64_t leaf = blockIdx.x;
  const LeafBox box = leaf_box(leaves, leaf);
  const auto count = static_cast<int32_t>(leaves.patch_pixels());
  out += leaf * count;
  const LabelBlock block = block_of(leaves, box, leaf / leaves.leaves, labels);
  for (int32_t p = first_place(); p < count; p += place_stride()) {
    if (box.is_bad || box.is_padding) {
      out[p] = -1;
      continue;
    }
    const auto [z, y, x] = place_of(leaves, p);
    out[p] = winner(block, voters(rule, box.size[0], leaves.patch(0), z),
                    voters(rule, box.size[1], leaves.patch(1), y),
                    voters(rule, box.size[2], leaves.patch(2), x));
  }
}

/// value(z, y, x, class) for all places and classes of a leaf.
template <class Value>
__device__ void write_shares(const LeafBatch& leaves, int64_t leaf, float* out, Value&& value) {
  const auto count = static_cast<int32_t>(leaves.patch_pixels());
  const int64_t b = leaf / leaves.leaves, l = leaf - b * leaves.leaves;
  for (int64_t c = 0; c < leaves.channels; ++c) {
    float* to = out + ((b * leaves.channels + c) * leaves.leaves + l) * count;
    for (int32_t p = first_place(); p < count; p += place_stride()) {
      const auto [z, y, x] = place_of(leaves, p);
      to[p] = value(z, y, x, c);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    share_leaves(LeafBatch leaves, const int64_t* labels, float* out) {
  const int64_t leaf = blockIdx.x;
  const LeafBox box = leaf_box(leaves, leaf);
  if (box.is_bad || box.is_padding) {
    const float empty = box.is_bad ? NAN : 0.0f;
    write_shares(leaves, leaf, out, [&](int32_t, int32_t, int32_t, int64_t) { return empty; });
    return;
  }
  const LabelBlock block = block_of(leaves, box, leaf / leaves.leaves, labels);
  Axis axes[3];
  for (int a = 0; a < 3; ++a) axes[a] = make_axis(Resample::area, box.size[a], leaves.patch(a));
  __shared__ TapsTable table;
  const bool is_tabulated = table.fill(axes);
  write_shares(leaves, leaf, out, [&](int32_t z, int32_t y, int32_t x, int64_t c) {
    return static_cast<float>(
        is_tabulated
            ? share_of(block, c, table.at(0, z), table.at(1, y), table.at(2, x))
            : share_of(block, c, taps_of(axes[0], z), taps_of(axes[1], y), taps_of(axes[2], x)));
  });
}

}  // namespace

void serialise_labels_gpu(LabelRule rule, const LeafBatch& leaves, const int64_t* labels,
                          int64_t* out, void* stream) {
  if (leaves.batch * leaves.leaves == 0) return;
  const LeafGrid grid = leaf_grid(leaves, leaves.patch_pixels());
  label_leaves<<<grid.blocks, grid.threads, 0, static_cast<cudaStream_t>(stream)>>>(rule, leaves,
                                                                                    labels, out);
  kernels::check_launch("labels of leaves");
}

void serialise_shares_gpu(const LeafBatch& leaves, const int64_t* labels, float* out,
                          void* stream) {
  if (leaves.batch * leaves.leaves == 0) return;
  const LeafGrid grid = leaf_grid(leaves, leaves.patch_pixels());
  share_leaves<<<grid.blocks, grid.threads, 0, static_cast<cudaStream_t>(stream)>>>(leaves, labels,
                                                                                    out);
  kernels::check_launch("class shares of leaves");
}

}  // namespace vitrail::patching
