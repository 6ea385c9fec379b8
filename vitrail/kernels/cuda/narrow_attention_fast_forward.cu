// The fast form of narrow attention, forward.

#include "vitrail/kernels/cuda/narrow_attention_panels.cuh"

namespace vitrail::kernels::narrow {
namespace {

template <int kWidth>
constexpr int kGroups = kWidth == 16 ? 6 : 5;

template <int kWidth>
struct Pass {
  using Panel = ForwardPanel<kWidth>;
  static constexpr int kBuffers = 1;

  uint32_t q[kWidth / 16][4], start[4];
  SharedMatrix ones;
  float top[2];  // the bound of rows g and g + 8
  float x[kBuffers][kTileColumns / 2] = {};
  float out[(kWidth + 8) / 2] = {};  // the last eight columns: sums of probabilities
  uint32_t p[kTileColumns / 16][4];

  __device__ __forceinline__ void begin_scores(const SharedMatrix& tile, int buffer) {
    begin_rows(x[buffer], q, tile);
    wgmma_f16(x[buffer], start, ones, true);
  }
  __device__ __forceinline__ void weigh(int buffer) { exponentials<false>(x[buffer], p); }
  __device__ __forceinline__ void add(const SharedMatrix& panel, int tile) {
    add_columns<Panel::kVMatrix>(out, p, panel.at(Panel::kV + tile * 2 * Panel::kVMatrix));
  }
  __device__ __forceinline__ void pin_scores(int buffer) { wgmma_pin(x[buffer]); }
  __device__ __forceinline__ void pin_sums() { wgmma_pin(out); }
  __device__ __forceinline__ void pin_weights() { wgmma_pin(p); }

  __device__ __forceinline__ void load(const Head<const uint16_t>& head, int first, int tokens,
                                       const Scales& scales, float largest_k) {
    load_rows<kWidth, true>(q, head, first, tokens, [&](int) { return scales.score; });
    float norms[2];
    square_norms(q, norms);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // A little more than the bound, for the rounding of both operands.
      top[half] = ceilf(sqrtf(norms[half]) * largest_k * 1.002f * 64.0f) / 64.0f;
      const Pieces rest = pieces_of(offset_of(half) - top[half]);
      start[half] = lane_pair(base_of(half), rest.a, rest.b, rest.c);
      start[half + 2] = 0;
    }
  }
};

template <int kWidth>
__global__ void __launch_bounds__(kGroups<kWidth>* kGroup, 1)
    forward_kernel(Sizes sizes, HeadRows<const uint16_t> q, Bounds* bounds,
                   const unsigned char* packed, int stages, HeadRows<uint16_t> out, float* lse) {
  using Panel = ForwardPanel<kWidth>;
  Bounds& mine = bounds[blockIdx.y];
  const Scales scales = scales_of(mine, sizes.scale);
  if (forward_form(scales.bound, {}) != Form::fast) return;
  __shared__ uint64_t barriers[2 * kStages];
  auto* const shared = dynamic_shared<unsigned char>();
  const Ring<Panel> ring{barriers, barriers + kStages,
                         packed + static_cast<int64_t>(blockIdx.y) * stages * kStageBytes<Panel>,
                         shared + kOnesBytes, stages};
  write_ones(shared);
  ring.prepare();
  __syncthreads();
  ring.start();

  const int first = first_row_of_warp<kGroups<kWidth>>();
  Pass<kWidth> pass;
  pass.ones = shared_matrix(shared, 0);
  pass.load(head_of(q, sizes, kWidth), first, sizes.tokens, scales,
            __int_as_float(mine.k) * scales.k);
  run_pass(ring, pass);

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float by_v = inverse_power(scales.v);
  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // The column of ones is the first of the last eight: lanes with t = 0 have it.
    const float sum = __shfl_sync(0xFFFFFFFFu, pass.out[kWidth / 2 + 2 * half], lane / 4 * 4);
    factors[half] = by_v / sum;
    const int row = first + lane / 4 + half * 8;
    if (row >= sizes.tokens || lane % 4 != 0) continue;
    lse[static_cast<int64_t>(blockIdx.y) * sizes.tokens + row] =
        (pass.top[half] + log2f(sum) - 15.0f) * kLn2;
    if (!(sum >= kLeastMean * static_cast<float>(sizes.tokens))) mine.is_distrusted = 1;
  }
  store_sums<kWidth>(head_of(out, sizes, kWidth), first, sizes.tokens, pass.out, factors);
}

template <int kWidth>
void run(const Sizes& sizes, const AttentionForward& task, const Workspace& workspace,
         void* stream) {
  using Panel = ForwardPanel<kWidth>;
  constexpr int kThreads = kGroups<kWidth> * kGroup;
  launch(forward_kernel<kWidth>,
         grid_of(sizes, sizes.tokens, kThreads / 2, kThreads,
                 kOnesBytes + kStages * kStageBytes<Panel>, stream),
         sizes, task.q, workspace.bounds, workspace.stream,
         static_cast<int>(stages_of<Panel>(sizes.tokens)), task.out, task.lse);
}

}  // namespace

void fast_forward(const Sizes& sizes, int width, const AttentionForward& task,
                  const Workspace& workspace, void* stream) {
  pack_forward_panels(sizes, width, task, workspace, stream);
  (width == 16 ? run<16> : run<32>)(sizes, task, workspace, stream);
}

}  // namespace vitrail::kernels::narrow
