#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/patching/cuda/resample_taps.cuh"
#include "vitrail/patching/resample_gather.h"

namespace vitrail::patching {
namespace {

struct Job {
  LeafMap map;
  LeafBatch leaves;
  const float* in;
  float* out;
};

/// One leaf in one channel: the values read and those written.
struct Blocks {
  ValueBlock in;
  float* out;
  int64_t plane, row;  // strides of `out`
};

__device__ Blocks blocks_of(const Job& job, const LeafBox& box, int64_t leaf, int64_t channel) {
  const LeafBatch& leaves = job.leaves;
  const int64_t b = leaf / leaves.leaves, l = leaf - b * leaves.leaves;
  const int64_t map = b * leaves.channels + channel;
  const int64_t token = (map * leaves.leaves + l) * leaves.patch_pixels();
  const int64_t patch_plane = static_cast<int64_t>(leaves.patch(1)) * leaves.patch(2);
  const int64_t patch_row = leaves.patch(2);
  const int64_t row = leaves.sides[2], plane = leaves.sides[1] * row;
  const int64_t pixel = map * leaves.pixels() + box.low[0] * plane + box.low[1] * row + box.low[2];
  if (job.map.to_patch())
    return {{job.in + pixel, plane, row}, job.out + token, patch_plane, patch_row};
  return {{job.in + token, patch_plane, patch_row}, job.out + pixel, plane, row};
}

/// Places that a leaf writes in one channel.
__device__ int32_t places_of(const Job& job, const LeafBox& box) {
  return job.map.to_patch() ? static_cast<int32_t>(job.leaves.patch_pixels()) : box.pixels();
}

__device__ void fill_tokens(const Job& job, int64_t leaf, float value) {
  const LeafBox nowhere{{0, 0, 0}, {0, 0, 0}};
  const int64_t count = job.leaves.patch_pixels();
  for (int64_t c = 0; c < job.leaves.channels; ++c) {
    float* out = blocks_of(job, nowhere, leaf, c).out;
    for (int64_t p = first_place(); p < count; p += place_stride()) out[p] = value;
  }
}

/// value(in, z, y, x) for all places that the leaf writes, in all channels.
template <class Value>
__device__ void write_leaf(const Job& job, const LeafBox& box, int64_t leaf, Value&& value) {
  const bool to_patch = job.map.to_patch();
  const int32_t rows = to_patch ? job.leaves.patch(1) : box.size[1];
  const int32_t columns = to_patch ? job.leaves.patch(2) : box.size[2];
  const int32_t count = places_of(job, box);
  for (int64_t c = 0; c < job.leaves.channels; ++c) {
    const Blocks blocks = blocks_of(job, box, leaf, c);
    for (int32_t p = first_place(); p < count; p += place_stride()) {
      const int32_t line = p / columns, x = p - line * columns;
      const int32_t z = line / rows, y = line - z * rows;
      blocks.out[z * blocks.plane + y * blocks.row + x] = value(blocks.in, z, y, x);
    }
  }
}

// Rarely needed: a call keeps its registers out of the loops.
__device__ __noinline__ AxisTaps computed_taps(const Axis& axis, int32_t i) {
  return taps_of(axis, i);
}

template <bool kAdjoint, class TapsAt>
__device__ void resample_leaf(const Job& job, const LeafBox& box, int64_t leaf,
                              const Axis (&axes)[3], TapsAt&& taps_at) {
  write_leaf(job, box, leaf, [&](const ValueBlock& in, int32_t z, int32_t y, int32_t x) {
    if constexpr (kAdjoint)
      return adjoint_gathered(in, axes, z, y, x, taps_at);
    else
      return gathered(in, taps_at(0, z), taps_at(1, y), taps_at(2, x));
  });
}

/// Blocks along x are leaves, along y parts of a leaf's places.
template <bool kAdjoint>
__global__ void __launch_bounds__(kThreads, 3) resample(const __grid_constant__ Job job) {
  const int64_t leaf = blockIdx.x;
  const LeafBox box = leaf_box(job.leaves, leaf);
  if (box.is_bad || box.is_padding) {
    if (job.map.to_patch()) fill_tokens(job, leaf, box.is_bad ? NAN : 0.0f);
    return;
  }
  if (first_place_of_block() >= places_of(job, box)) return;
  Axis axes[3];
  for (int a = 0; a < 3; ++a) axes[a] = job.map.axis(box.size[a], job.leaves.patch(a));
  if (axes[0].rule == AxisRule::copy && axes[1].rule == AxisRule::copy &&
      axes[2].rule == AxisRule::copy) {
    write_leaf(job, box, leaf, [](const ValueBlock& in, int32_t z, int32_t y, int32_t x) {
      return in.data[z * in.plane + y * in.row + x];
    });
    return;
  }
  __shared__ TapsTable table;
  if (table.fill(axes))
    resample_leaf<kAdjoint>(job, box, leaf, axes,
                            [&](int a, int32_t i) -> const AxisTaps& { return table.at(a, i); });
  else
    resample_leaf<kAdjoint>(job, box, leaf, axes,
                            [&](int a, int32_t i) { return computed_taps(axes[a], i); });
}

}  // namespace

void resample_gpu(const LeafMap& map, const LeafBatch& leaves, const float* in, float* out,
                  void* stream) {
  if (leaves.batch * leaves.leaves == 0) return;
  const int64_t mean_places =
      map.to_patch() ? leaves.patch_pixels() : leaves.pixels() / leaves.leaves;
  const auto kernel = map.is_adjoint ? resample<true> : resample<false>;
  const LeafGrid grid = leaf_grid(leaves, mean_places);
  kernel<<<grid.blocks, grid.threads, 0, static_cast<cudaStream_t>(stream)>>>(
      {map, leaves, in, out});
  kernels::check_launch("resampling of leaves");
}

}  // namespace vitrail::patching
