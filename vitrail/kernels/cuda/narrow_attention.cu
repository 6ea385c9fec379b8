// The choice and the memory of narrow attention; the kernels are in narrow_attention_*.cu.

#include <algorithm>
#include <cmath>

#include "vitrail/kernels/cuda/narrow_attention.cuh"

namespace vitrail::kernels {
namespace {

using namespace narrow;

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

class NarrowAttention : public AttentionKernel {
 public:
  explicit NarrowAttention(const AttentionShape& shape)
      : width_(static_cast<int>(shape.head_width)) {
    sizes_.tokens = static_cast<int>(shape.tokens);
    sizes_.heads = static_cast<int>(shape.heads);
    sizes_.problems = static_cast<int>(shape.samples * shape.heads);
    sizes_.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_width));
    bounds_bytes_ = aligned(sizes_.problems * static_cast<int64_t>(sizeof(Bounds)));
    rows_bytes_ =
        aligned(int64_t{sizes_.problems} * sizes_.tokens * static_cast<int64_t>(sizeof(RowFacts)));
    // The forms and their passes run one after another, so their streams share one place.
    stream_bytes_ = aligned(sizes_.problems * std::max(fast_stream_bytes(shape.tokens, width_),
                                                       general_stream_bytes(shape.tokens, width_)));
  }

  std::string name() const override { return "narrow"; }

  int64_t workspace_bytes() const override { return bounds_bytes_ + rows_bytes_ + stream_bytes_; }

  void forward(const AttentionForward& task, void* workspace, void* stream) override {
    const Workspace parts = parts_of(workspace);
    find_bounds(sizes_, width_, task.q, task.k, task.v, nullptr, parts.bounds, stream);
    fast_forward(sizes_, width_, task, parts, stream);
    general_forward(sizes_, width_, task, parts, stream);
  }

  void backward(const AttentionBackward& task, void* workspace, void* stream) override {
    const Workspace parts = parts_of(workspace);
    find_bounds(sizes_, width_, task.q, task.k, task.v, &task.dout, parts.bounds, stream);
    find_facts(sizes_, width_, task, parts, stream);
    fast_backward(sizes_, width_, task, parts, stream);
    general_backward(sizes_, width_, task, parts, stream);
  }

 private:
  Workspace parts_of(void* workspace) const {
    auto* const at = static_cast<unsigned char*>(workspace);
    return {reinterpret_cast<Bounds*>(at), reinterpret_cast<RowFacts*>(at + bounds_bytes_),
            at + bounds_bytes_ + rows_bytes_};
  }

  Sizes sizes_;
  int width_;
  int64_t bounds_bytes_ = 0, rows_bytes_ = 0, stream_bytes_ = 0;
};

}  // namespace

std::unique_ptr<AttentionKernel> narrow_attention(const AttentionShape& shape, int) {
  constexpr int64_t kMostProblems = 65535;  // of a grid's second axis
  // Chunks of a problem's stream are counted in 32 bits.
  constexpr int64_t kMostTokens = int64_t{1} << 22;
  const bool is_ours = (shape.head_width == 16 || shape.head_width == 32) && !shape.has_lengths &&
                       shape.kv_heads == shape.heads &&
                       shape.samples * shape.heads <= kMostProblems && shape.samples >= 1 &&
                       shape.heads >= 1 && shape.tokens >= 1 && shape.tokens <= kMostTokens;
  if (!is_ours) return nullptr;
  return std::make_unique<NarrowAttention>(shape);
}

}  // namespace vitrail::kernels
