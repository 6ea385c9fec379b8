// The fast form of narrow attention, backward: one pass whose warps hold queries and stream keys (dq), one whose warps
// hold keys and stream queries (dk, dv). Scores are computed twice, and nothing is added up across blocks.
//
//   p = 2^(x - lse);   dp = dout v^T;   ds = p (dp - D), D = out . dout;   dq = scale ds k, dk = scale ds^T q, dv = p^T dout

#include "vitrail/kernels/cuda/narrow_attention_panels.cuh"

namespace vitrail::kernels::narrow {
namespace {

constexpr float kProbabilityScale = 1.0f / 16384.0f;  // probabilities are 2^14 p

template <int kWidth>
constexpr int kQueryGroups = 4;
template <int kWidth>
constexpr int kKeyGroups = kWidth == 16 ? 4 : 3;

/// The stages of the block's problem; barriers and ones are ready when it returns.
template <class Panel>
__device__ __forceinline__ Ring<Panel> open_ring(uint64_t* barriers, const unsigned char* packed,
                                                 int stages) {
  auto* const shared = dynamic_shared<unsigned char>();
  const Ring<Panel> ring{barriers, barriers + kStages,
                         packed + static_cast<int64_t>(blockIdx.y) * stages * kStageBytes<Panel>,
                         shared + kOnesBytes, stages};
  write_ones(shared);
  ring.prepare();
  __syncthreads();
  ring.start();
  return ring;
}

// ---- over queries: dq ----

template <int kWidth, bool kFar>
struct QueryPass {
  using Panel = QueryPanel<kWidth>;
  static constexpr int kBuffers = kWidth == 16 && !kFar ? 2 : 1;

  uint32_t q[kWidth / 16][4], dout[kWidth / 16][4], start[4];
  uint32_t minus_d[2];  // of rows g and g + 8, twice
  SharedMatrix ones;
  float x[kBuffers][kTileColumns / 2] = {}, dp[kBuffers][kTileColumns / 2] = {};
  float dq[kWidth / 2] = {};
  uint32_t p[kTileColumns / 16][4], ds[kTileColumns / 16][4];

  __device__ __forceinline__ void begin_scores(const SharedMatrix& tile, int buffer) {
    begin_rows(x[buffer], q, tile);
    wgmma_f16(x[buffer], start, ones, true);
    begin_rows(dp[buffer], dout, tile.at(Panel::kV));
  }
  __device__ __forceinline__ void weigh(int buffer) {
    exponentials<kFar>(x[buffer], p);
    weigh_gradients(dp[buffer], p, minus_d, ds);
  }
  __device__ __forceinline__ void add(const SharedMatrix& panel, int tile) {
    add_columns<kColumnsBytes<kWidth>>(
        dq, ds, panel.at(Panel::kColumns + tile * 2 * kColumnsBytes<kWidth>));
  }
  __device__ __forceinline__ void pin_scores(int buffer) {
    wgmma_pin(x[buffer]);
    wgmma_pin(dp[buffer]);
  }
  __device__ __forceinline__ void pin_sums() { wgmma_pin(dq); }
  __device__ __forceinline__ void pin_weights() { wgmma_pin(ds); }

  __device__ __forceinline__ void load(const Head<const uint16_t>& q_head,
                                       const Head<const uint16_t>& dout_head, const RowFacts* facts,
                                       int first, int tokens, const Scales& scales) {
    load_rows<kWidth, true>(q, q_head, first, tokens, [&](int) { return scales.score; });
    load_rows<kWidth, true>(dout, dout_head, first, tokens,
                            [&](int row) { return facts[row].dout_scale; });
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + static_cast<int>(threadIdx.x) % 32 / 4 + half * 8;
      const bool is_there = row < tokens;
      const Pieces s = pieces_of(offset_of(half) - 1.0f - (is_there ? facts[row].lse : 0.0f));
      const float d = is_there ? facts[row].minus_d : 0.0f;
      start[half] = lane_pair(base_of(half), s.a, s.b, s.c);
      start[half + 2] = 0;
      minus_d[half] = pack_f16(d, d);
    }
  }
};

template <int kWidth, bool kFar>
__global__ void __launch_bounds__(kQueryGroups<kWidth>* kGroup, 1)
    query_kernel(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> dout,
                 const Bounds* bounds, const RowFacts* all_rows, const unsigned char* packed,
                 int stages, HeadRows<uint16_t> dq) {
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  if (backward_form(scales.bound) != Form::fast) return;
  if (is_far(scales.bound, bounds[blockIdx.y]) != kFar) return;
  __shared__ uint64_t barriers[2 * kStages];
  const auto ring = open_ring<QueryPanel<kWidth>>(barriers, packed, stages);

  const RowFacts* const facts = all_rows + static_cast<int64_t>(blockIdx.y) * sizes.tokens;
  const int first = first_row_of_warp<kQueryGroups<kWidth>>();
  QueryPass<kWidth, kFar> pass;
  pass.ones = shared_matrix(dynamic_shared<unsigned char>(), 0);
  pass.load(head_of(q, sizes, kWidth), head_of(dout, sizes, kWidth), facts, first, sizes.tokens,
            scales);
  run_pass(ring, pass);

  const float undo =
      sizes.scale * kProbabilityScale * inverse_power(scales.k) * inverse_power(scales.v);
  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + static_cast<int>(threadIdx.x) % 32 / 4 + half * 8;
    factors[half] = row < sizes.tokens ? undo * inverse_power(facts[row].dout_scale) : 0.0f;
  }
  store_sums<kWidth>(head_of(dq, sizes, kWidth), first, sizes.tokens, pass.dq, factors);
}

// ---- over keys: dk, dv ----

template <int kWidth, bool kFar>
struct KeyPass {
  using Panel = KeyPanel<kWidth>;
  static constexpr int kBuffers = 1;

  // With a panel's numbers of rows: start and minus_d pick what each needs of them.
  uint32_t k[kWidth / 16][4], v[kWidth / 16][4], start[4], minus_d[4];
  float x[kBuffers][kTileColumns / 2] = {}, dp[kBuffers][kTileColumns / 2] = {};
  float dk[kWidth / 2] = {}, dv[kWidth / 2] = {};
  uint32_t p[kTileColumns / 16][4], ds[kTileColumns / 16][4];

  __device__ __forceinline__ void begin_scores(const SharedMatrix& tile, int buffer) {
    begin_rows(x[buffer], k, tile);
    wgmma_f16(x[buffer], start, tile.at(kRowsBytes<kWidth>), true);
    begin_rows(dp[buffer], v, tile.at(Panel::kDout));
    wgmma_f16(dp[buffer], minus_d, tile.at(Panel::kDout + kRowsBytes<kWidth>), true);
  }
  __device__ __forceinline__ void weigh(int buffer) {
    exponentials<kFar>(x[buffer], p);
    weigh_gradients(dp[buffer], p, ds);
  }
  __device__ __forceinline__ void add(const SharedMatrix& panel, int tile) {
    constexpr int kMatrix = kColumnsBytes<kWidth>;
    const SharedMatrix columns = panel.at(Panel::kColumns + tile * 2 * kMatrix);
#pragma unroll
    for (int step = 0; step < kTileColumns / 16; ++step) {
      wgmma_f16(dv, p[step], columns.at(step * kMatrix), true);
      wgmma_f16(dk, ds[step], columns.at((4 + step) * kMatrix), true);
    }
  }
  __device__ __forceinline__ void pin_scores(int buffer) {
    wgmma_pin(x[buffer]);
    wgmma_pin(dp[buffer]);
  }
  __device__ __forceinline__ void pin_sums() {
    wgmma_pin(dk);
    wgmma_pin(dv);
  }
  __device__ __forceinline__ void pin_weights() {
    wgmma_pin(p);
    wgmma_pin(ds);
  }

  __device__ __forceinline__ void load(const Head<const uint16_t>& k_head,
                                       const Head<const uint16_t>& v_head, int first, int tokens,
                                       const Scales& scales) {
    load_rows<kWidth, true>(k, k_head, first, tokens, [&](int) { return scales.k; });
    load_rows<kWidth, true>(v, v_head, first, tokens, [&](int) { return scales.v; });
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Pieces offset = pieces_of(offset_of(half) - 1.0f);
      start[half] = lane_pair(base_of(half), 1.0f, 1.0f, 1.0f, offset.a, offset.b);
      minus_d[half] = lane_pair(0.0f, 1.0f, 1.0f, 1.0f);
      start[half + 2] = minus_d[half + 2] = 0;
    }
  }
};

template <int kWidth, bool kFar>
__global__ void __launch_bounds__(kKeyGroups<kWidth>* kGroup, 1)
    key_kernel(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
               const Bounds* bounds, const unsigned char* packed, int stages, HeadRows<uint16_t> dk,
               HeadRows<uint16_t> dv) {
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  if (backward_form(scales.bound) != Form::fast) return;
  if (is_far(scales.bound, bounds[blockIdx.y]) != kFar) return;
  __shared__ uint64_t barriers[2 * kStages];
  const auto ring = open_ring<KeyPanel<kWidth>>(barriers, packed, stages);

  const int first = first_row_of_warp<kKeyGroups<kWidth>>();
  KeyPass<kWidth, kFar> pass;
  pass.load(head_of(k, sizes, kWidth), head_of(v, sizes, kWidth), first, sizes.tokens, scales);
  run_pass(ring, pass);

  const float by_dout = kProbabilityScale * inverse_power(scales.dout);
  const float by_v = by_dout / 16.0f;
  const float by_k =
      sizes.scale * (by_dout / 8.0f) * inverse_power(scales.v) * inverse_power(scales.q);
  store_sums<kWidth>(head_of(dk, sizes, kWidth), first, sizes.tokens, pass.dk, {by_k, by_k});
  store_sums<kWidth>(head_of(dv, sizes, kWidth), first, sizes.tokens, pass.dv, {by_v, by_v});
}

template <class Panel>
constexpr size_t kShared = kOnesBytes + kStages* kStageBytes<Panel>;

// Each problem runs in one of the two; the other leaves at once.
template <int kWidth>
void over_queries(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
                  void* stream) {
  using Panel = QueryPanel<kWidth>;
  constexpr int kThreads = kQueryGroups<kWidth> * kGroup;
  for (const auto kernel : {query_kernel<kWidth, false>, query_kernel<kWidth, true>})
    launch(kernel, grid_of(sizes, sizes.tokens, kThreads / 2, kThreads, kShared<Panel>, stream),
           sizes, task.q, task.dout, workspace.bounds, workspace.rows, workspace.stream,
           static_cast<int>(stages_of<Panel>(sizes.tokens)), task.dq);
}

template <int kWidth>
void over_keys(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
               void* stream) {
  using Panel = KeyPanel<kWidth>;
  constexpr int kThreads = kKeyGroups<kWidth> * kGroup;
  for (const auto kernel : {key_kernel<kWidth, false>, key_kernel<kWidth, true>})
    launch(kernel, grid_of(sizes, sizes.tokens, kThreads / 2, kThreads, kShared<Panel>, stream),
           sizes, task.k, task.v, workspace.bounds, workspace.stream,
           static_cast<int>(stages_of<Panel>(sizes.tokens)), task.dk, task.dv);
}

}  // namespace

void fast_backward(const Sizes& sizes, int width, const AttentionBackward& task,
                   const Workspace& workspace, void* stream) {
  pack_query_panels(sizes, width, task, workspace, stream);
  (width == 16 ? over_queries<16> : over_queries<32>)(sizes, task, workspace, stream);
  pack_key_panels(sizes, width, task, workspace, stream);
  (width == 16 ? over_keys<16> : over_keys<32>)(sizes, task, workspace, stream);
}

}  // namespace vitrail::kernels::narrow
