#pragma once
/// Augmentation of a batch of images or volumes after a plan: for every sample a header and a few
/// slots, each one operation. CPU and CUDA run the same functions (augment_ops.h).
///
/// Equality CPU and GPU give the same bits wherever only + - * / and index arithmetic are used; the
///          plan holds every sine, cosine and kernel weight. gamma (pow) and noise (log, cos) may differ
///          by a few ulp.
/// Memory   two buffers for images (and for masks and values, where there are any), used in turns; and
///          for each sample 2 KiB of statistics a channel.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::kernels {

enum class AugmentOp : int32_t {
  none,
  gather,      // index maps per axis
  affine,      // linear map of places, linear interpolation or the nearest pixel; zero outside
  window,      // a box resized to the output's sides, antialiased
  blur,        // along one axis
  brightness,  // factor
  contrast,
  saturation,
  hue,  // turn
  gray,
  sharpness,
  posterize,  // bits
  solarize,   // threshold
  autocontrast,
  equalize,
  invert,
  intensity,  // factor, shift
  gamma,      // exponent
  noise       // standard deviation
};

VT_HOST_DEVICE constexpr bool is_geometric(AugmentOp op) {
  return op == AugmentOp::gather || op == AugmentOp::affine || op == AugmentOp::window;
}
/// Needs a histogram or a mean of the sample as it is before the operation.
VT_HOST_DEVICE constexpr bool needs_statistics(AugmentOp op) {
  return op == AugmentOp::contrast || op == AugmentOp::autocontrast || op == AugmentOp::equalize;
}

/// Along one axis of the result: pixel p comes from start + step * p of the source's axis when low <=
/// p < high.
struct AugmentAxis {
  int32_t axis, start, step, low, high;
};

constexpr int32_t kBlurRadius = 15;

/// One operation on one sample. Axes are those of a volume; an image has one pixel along the first.
struct AugmentSlot {
  AugmentOp op;
  int32_t flag;              // affine: 1 = nearest pixel; blur: its axis; noise: layer of the draws
  int32_t number;            // blur: radius; posterize: bits
  int32_t geometric_before;  // geometric operations in the slots before this one
  int32_t in[3], out[3];     // sides
  union {
    AugmentAxis axis[3];  // gather
    float matrix[12];     // affine: place of a result pixel's centre, in pixels: [3 rows][z y x 1]
    int32_t box[6];       // window: origin, sides
    float weight[kBlurRadius + 1];  // blur: of the middle, of its neighbours, ...
    float value[2];                 // everything else
  };
};

enum class AugmentMix : int32_t { none, mixup, cutmix };
enum class AugmentErase : int32_t { none, zero, noise };

/// Followed by the row's slots, then `channels` means and `channels` standard deviations.
struct AugmentHeader {
  int32_t steps;      // slots in use
  int32_t geometric;  // of these, geometric ones
  int32_t in[3];      // sides as the sample enters
  int32_t crop[3];    // of the last slot's result, where the batch's own sides begin
  int32_t erase[6];   // first and one past the last pixel of the result, per axis
  AugmentErase erase_kind;
  AugmentMix mix;
  int32_t mix_box[6];  // of the partner's pixels (cutmix)
  float share;         // of the sample itself
  uint32_t epoch;
  uint64_t seed;
  int64_t index;
};
static_assert(sizeof(AugmentHeader) % 8 == 0 && sizeof(AugmentSlot) % 4 == 0);

constexpr int64_t augment_row_bytes(int64_t slots, int64_t channels) {
  const auto bytes = static_cast<int64_t>(sizeof(AugmentHeader)) +
                     slots * static_cast<int64_t>(sizeof(AugmentSlot)) + 8 * channels;
  return (bytes + 7) / 8 * 8;
}

/// A part of a batch as it goes from slot to slot: row b of the input starts at in + b * row; both
/// buffers are overwritten.
template <class T>
struct AugmentBuffers {
  T* in = nullptr;     // null = the batch has no such part
  T* other = nullptr;  // as large
  T* out = nullptr;    // [batch, channels, target sides]
  int64_t channels = 1;
  int64_t row = 0;  // elements
};

struct AugmentBatch {
  const uint8_t* plan = nullptr;
  int64_t row_bytes = 0, slots = 0, batch = 0;
  int64_t target[3] = {1, 1, 1};
  AugmentBuffers<float> image;
  AugmentBuffers<int64_t> mask;    // classes, -1 outside
  AugmentBuffers<float> values;    // images to be learnt, NaN outside
  float* boxes = nullptr;          // [batch, max_boxes, 4], in place
  int64_t* box_classes = nullptr;  // [batch, max_boxes]
  int64_t max_boxes = 0;
  float* vectors = nullptr;  // [batch, vector_size]: numbers to be learnt, blended by mixing
  float* vectors_out = nullptr;
  int64_t vector_size = 0;
  const int64_t* label = nullptr;  // [batch] classes
  int64_t* label_other = nullptr;  // written with label
  float* label_share = nullptr;
  void* statistics = nullptr;  // augment_statistics_bytes(), of any content
};

int64_t augment_statistics_bytes(int64_t batch, int64_t channels);

/// The plain form: sample after sample on `threads` threads.
void augment_cpu(const AugmentBatch& batch, int threads);
/// The same on device pointers; asynchronous on `stream` (a cudaStream_t).
/// throws Error in a build without CUDA.
void augment(const AugmentBatch& batch, void* stream);

}  // namespace vitrail::kernels
