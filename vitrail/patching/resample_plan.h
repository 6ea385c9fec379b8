#pragma once
/// What the CPU and the GPU are told of a batch of leaves; device pointers, no tensors.

#include <cstdint>

#include "vitrail/patching/axis_weights.h"

namespace vitrail::patching {

/// serialise (leaf to patch), paste (patch to leaf), or the adjoint of one of them.
struct LeafMap {
  Resample method = Resample::area;
  bool is_paste = false, is_adjoint = false;

  VT_HOST_DEVICE constexpr bool to_patch() const { return is_paste == is_adjoint; }
  /// The axis of the map itself for a leaf of n pixels; the adjoint goes it backwards.
  VT_HOST_DEVICE constexpr Axis axis(int32_t n, int32_t patch) const {
    return is_paste ? make_axis(method, patch, n) : make_axis(method, n, patch);
  }
};

/// Leaves of a batch; an image is a volume of one plane.
struct LeafBatch {
  const float* boxes = nullptr;  // [batch, leaves, 2 * axes]
  int64_t batch = 0, leaves = 0, channels = 1;
  int32_t axes = 2, patch_size = 1;
  int32_t sides[3] = {1, 1, 1};

  VT_HOST_DEVICE int64_t pixels() const {
    return static_cast<int64_t>(sides[0]) * sides[1] * sides[2];
  }
  VT_HOST_DEVICE int32_t patch(int a) const { return a == 0 && axes == 2 ? 1 : patch_size; }
  VT_HOST_DEVICE int64_t patch_pixels() const {
    return static_cast<int64_t>(patch(0)) * patch(1) * patch(2);
  }
};

/// On the GPU: asynchronous on `stream` (a cudaStream_t), the same bits at every call. A box that is none (outside
/// the image, not between pixels) gives tokens NaN and labels -1, and nothing is pasted.
/// throws   Error in a build without CUDA.
///
/// in -> out, image [B, C, sides...] and tokens [B, C, L, P^k]; an image that is written must be 0 before.
void resample_gpu(const LeafMap& map, const LeafBatch& leaves, const float* in, float* out,
                  void* stream);
/// labels [B, sides...] -> [B, L, P^k]
void serialise_labels_gpu(LabelRule rule, const LeafBatch& leaves, const int64_t* labels,
                          int64_t* out, void* stream);
/// labels [B, sides...] -> [B, classes = leaves.channels, L, P^k]
void serialise_shares_gpu(const LeafBatch& leaves, const int64_t* labels, float* out, void* stream);

}  // namespace vitrail::patching
