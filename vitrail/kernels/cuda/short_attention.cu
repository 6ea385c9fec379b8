#include <cmath>

#include "vitrail/kernels/cuda/short_attention.cuh"

namespace vitrail::kernels {
namespace {

class ShortAttention final : public AttentionKernel {
 public:
  explicit ShortAttention(const AttentionShape& shape) : shape_(shape) {}

  std::string name() const override { return "short"; }

  int64_t workspace_bytes() const override {
    constexpr int64_t kAlignment = 256;
    const int64_t bytes = short_form::backward_workspace_values(shape_) * int64_t{sizeof(float)};
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  void forward(const AttentionForward& task, void*, void* stream) override {
    short_form::launch_forward(task, sizes(task.lengths), static_cast<int>(shape_.samples), stream);
  }

  void backward(const AttentionBackward& task, void* workspace, void* stream) override {
    short_form::launch_backward(task, sizes(task.lengths), static_cast<int>(shape_.samples),
                                static_cast<float*>(workspace), stream);
  }

 private:
  short_form::Sizes sizes(const int32_t* lengths) const {
    return {static_cast<int>(shape_.tokens),
            static_cast<int>(shape_.heads),
            static_cast<int>(shape_.kv_heads),
            static_cast<int>(shape_.head_width),
            1 / std::sqrt(static_cast<float>(shape_.head_width)),
            shape_.has_lengths ? lengths : nullptr};
  }

  AttentionShape shape_;
};

bool is_taken(const AttentionShape& s) {
  constexpr int64_t kMostBlocks = int64_t{1} << 30;
  return s.tokens >= 1 && s.tokens <= kMostShortTokens && s.head_width % 8 == 0 &&
         s.head_width >= 32 && s.head_width <= 128 && s.kv_heads >= 1 && s.heads >= 1 &&
         s.heads % s.kv_heads == 0 && s.samples >= 1 && s.samples * s.heads <= kMostBlocks;
}

bool has_room(const AttentionShape& shape, int device) {
  int64_t needed = 0;
  short_form::with_width(static_cast<int>(shape.head_width), [&]<int kWidth>() {
    needed = short_form::backward_shared_bytes<kWidth>(static_cast<int>(shape.tokens));
  });
  int most = 0;
  return cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) ==
             cudaSuccess &&
         needed <= most;
}

}  // namespace

std::unique_ptr<AttentionKernel> short_attention(const AttentionShape& shape, int device) {
  if (!is_taken(shape) || !has_room(shape, device)) return nullptr;
  return std::make_unique<ShortAttention>(shape);
}

}  // namespace vitrail::kernels
