// Operands of the fast form of narrow attention, as its products read them (narrow_attention_panels.cuh).

#include <algorithm>
#include <iterator>

#include "vitrail/kernels/cuda/narrow_attention_panels.cuh"

namespace vitrail::kernels::narrow {
namespace {

constexpr int kPackThreads = 256;

/// Eight values of a row from `column` on, times `by`. Rows past the end are copies of the last one: no score may be
/// larger than those of rows that are there.
__device__ __forceinline__ uint4 eight_of_row(const Head<const uint16_t>& head, int row, int column,
                                              float by) {
  const uint4 x = *reinterpret_cast<const uint4*>(head.row(row) + column);
  const auto scaled = [&](uint32_t pair) {
    return pack_f16(low_bf16(pair) * by, high_bf16(pair) * by);
  };
  return {scaled(x.x), scaled(x.y), scaled(x.z), scaled(x.w)};
}

/// Eight rows' values of one column, each times factor(row); 0 past the end.
template <class Factor>
__device__ __forceinline__ uint4 eight_of_column(const Head<const uint16_t>& head, int row,
                                                 int column, int tokens, Factor factor) {
  const auto value = [&](int i) {
    return row + i < tokens ? low_bf16(head.row(row + i)[column]) * factor(row + i) : 0.0f;
  };
  const auto pair = [&](int i) { return pack_f16(value(i), value(i + 1)); };
  return {pair(0), pair(2), pair(4), pair(6)};
}
__device__ __forceinline__ uint4 eight_ones(int row, int tokens) {
  const auto pair = [&](int i) {
    return pack_f16(row + i < tokens ? 1.0f : 0.0f, row + i + 1 < tokens ? 1.0f : 0.0f);
  };
  return {pair(0), pair(2), pair(4), pair(6)};
}

/// Chunk of 16 bytes of an operand by rows: row of the panel and the first of eight values of the width.
struct RowChunk {
  int row, column;
};
__device__ __forceinline__ RowChunk row_chunk(int chunk) {
  const int in_step = chunk % 128;
  return {in_step / 16 * 8 + in_step % 8, chunk / 128 * 16 + in_step / 8 % 2 * 8};
}
/// Chunk of an operand by columns whose matrices have `columns`: the first of eight rows of the panel, and the column.
__device__ __forceinline__ RowChunk column_chunk(int chunk, int columns) {
  const int in_matrix = chunk % (columns * 2);
  return {chunk / (columns * 2) * 16 + in_matrix / 8 % 2 * 8, in_matrix / 16 * 8 + in_matrix % 8};
}

/// Where a thread's chunk lies: panel, and number in the panel; false past the last.
template <class Panel>
__device__ __forceinline__ bool find_chunk(int stages, int& panel, int& chunk) {
  constexpr int kChunks = Panel::kBytes / 16;
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  panel = index / kChunks;
  chunk = index % kChunks;
  return panel < stages * Panel::kStagePanels;
}
template <class Panel>
__device__ __forceinline__ void put(unsigned char* packed, int stages, int panel, int chunk,
                                    const uint4& words) {
  const int64_t panels = static_cast<int64_t>(blockIdx.y) * stages * Panel::kStagePanels + panel;
  reinterpret_cast<uint4*>(packed)[panels * (Panel::kBytes / 16) + chunk] = words;
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_forward_kernel(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
                        const Bounds* bounds, int stages, unsigned char* packed) {
  using Panel = ForwardPanel<kWidth>;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  int panel, chunk;
  if (forward_form(scales.bound, {}) != Form::fast || !find_chunk<Panel>(stages, panel, chunk))
    return;
  const int first = panel * kPanel;
  uint4 words;
  if (chunk < Panel::kV / 16) {
    const RowChunk place = row_chunk(chunk);
    words = eight_of_row(head_of(k, sizes, kWidth), min(first + place.row, sizes.tokens - 1),
                         place.column, scales.k);
  } else {
    const RowChunk place = column_chunk(chunk - Panel::kV / 16, kWidth + 8);
    if (place.column < kWidth)
      words = eight_of_column(head_of(v, sizes, kWidth), first + place.row, place.column,
                              sizes.tokens, [&](int) { return scales.v; });
    else
      words = place.column == kWidth ? eight_ones(first + place.row, sizes.tokens) : uint4{};
  }
  put<Panel>(packed, stages, panel, chunk, words);
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_query_kernel(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
                      const Bounds* bounds, int stages, unsigned char* packed) {
  using Panel = QueryPanel<kWidth>;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  int panel, chunk;
  if (backward_form(scales.bound) != Form::fast || !find_chunk<Panel>(stages, panel, chunk)) return;
  const int first = panel * kPanel;
  uint4 words;
  if (chunk < Panel::kColumns / 16) {
    const bool is_v = chunk >= Panel::kV / 16;
    const RowChunk place = row_chunk(chunk - (is_v ? Panel::kV / 16 : 0));
    words =
        eight_of_row(head_of(is_v ? v : k, sizes, kWidth), min(first + place.row, sizes.tokens - 1),
                     place.column, is_v ? scales.v : scales.k);
  } else {
    const RowChunk place = column_chunk(chunk - Panel::kColumns / 16, kWidth);
    words = eight_of_column(head_of(k, sizes, kWidth), first + place.row, place.column,
                            sizes.tokens, [&](int) { return scales.k; });
  }
  put<Panel>(packed, stages, panel, chunk, words);
}

/// A query's numbers (KeyPass::start and minus_d say what multiplies them).
__device__ __forceinline__ uint4 numbers_of(const RowFacts& facts, bool is_score) {
  const Pieces p = pieces_of(is_score ? -facts.lse : facts.minus_d);
  const float one = is_score ? 1.0f : 0.0f;
  return {pack_f16(one, p.a), pack_f16(p.b, p.c), pack_f16(one, one), 0u};
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_key_kernel(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> dout,
                    const Bounds* bounds, const RowFacts* all_rows, int stages,
                    unsigned char* packed) {
  using Panel = KeyPanel<kWidth>;
  constexpr int kOfColumns = 4 * kColumnsBytes<kWidth> / 16;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  int panel, chunk;
  if (backward_form(scales.bound) != Form::fast || !find_chunk<Panel>(stages, panel, chunk)) return;
  const RowFacts* const facts = all_rows + static_cast<int64_t>(blockIdx.y) * sizes.tokens;
  const int first = panel * kPanel;
  uint4 words;
  if (chunk < Panel::kColumns / 16) {
    const bool is_q = chunk < Panel::kDout / 16;
    const RowChunk place = row_chunk(is_q ? chunk : chunk - Panel::kDout / 16);
    const int row = min(first + place.row, sizes.tokens - 1);
    if (place.column < kWidth)
      words = eight_of_row(head_of(is_q ? q : dout, sizes, kWidth), row, place.column,
                           is_q ? scales.score : facts[row].dout_scale);
    else
      words = place.column == kWidth ? numbers_of(facts[row], is_q) : uint4{};
  } else {
    const int at = chunk - Panel::kColumns / 16;
    const bool is_q = at >= kOfColumns;
    const RowChunk place = column_chunk(is_q ? at - kOfColumns : at, kWidth);
    // The factor of q undoes the row's scale of dout.
    words = eight_of_column(
        head_of(is_q ? q : dout, sizes, kWidth), first + place.row, place.column, sizes.tokens,
        [&](int row) {
          return is_q ? scales.q * (8.0f * (scales.dout * inverse_power(facts[row].dout_scale)))
                      : 16.0f * scales.dout;
        });
  }
  put<Panel>(packed, stages, panel, chunk, words);
}

template <class Panel>
Grid grid_for(const Sizes& sizes, int64_t stages, void* stream) {
  return grid_of(sizes, stages * (kStageBytes<Panel> / 16), kPackThreads, kPackThreads, 0, stream);
}

template <int kWidth>
void pack_forward(const Sizes& sizes, const AttentionForward& task, const Workspace& workspace,
                  void* stream) {
  using Panel = ForwardPanel<kWidth>;
  const int64_t stages = stages_of<Panel>(sizes.tokens);
  launch(pack_forward_kernel<kWidth>, grid_for<Panel>(sizes, stages, stream), sizes, task.k, task.v,
         workspace.bounds, static_cast<int>(stages), workspace.stream);
}
template <int kWidth>
void pack_query(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
                void* stream) {
  using Panel = QueryPanel<kWidth>;
  const int64_t stages = stages_of<Panel>(sizes.tokens);
  launch(pack_query_kernel<kWidth>, grid_for<Panel>(sizes, stages, stream), sizes, task.k, task.v,
         workspace.bounds, static_cast<int>(stages), workspace.stream);
}
template <int kWidth>
void pack_key(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
              void* stream) {
  using Panel = KeyPanel<kWidth>;
  const int64_t stages = stages_of<Panel>(sizes.tokens);
  launch(pack_key_kernel<kWidth>, grid_for<Panel>(sizes, stages, stream), sizes, task.q, task.dout,
         workspace.bounds, workspace.rows, static_cast<int>(stages), workspace.stream);
}

template <int kWidth>
int64_t stream_bytes(int64_t tokens) {
  using Forward = ForwardPanel<kWidth>;
  using Query = QueryPanel<kWidth>;
  using Key = KeyPanel<kWidth>;
  const int64_t bytes[] = {stages_of<Forward>(tokens) * kStageBytes<Forward>,
                           stages_of<Query>(tokens) * kStageBytes<Query>,
                           stages_of<Key>(tokens) * kStageBytes<Key>};
  return *std::max_element(std::begin(bytes), std::end(bytes));
}

}  // namespace

void pack_forward_panels(const Sizes& sizes, int width, const AttentionForward& task,
                         const Workspace& workspace, void* stream) {
  (width == 16 ? pack_forward<16> : pack_forward<32>)(sizes, task, workspace, stream);
}
void pack_query_panels(const Sizes& sizes, int width, const AttentionBackward& task,
                       const Workspace& workspace, void* stream) {
  (width == 16 ? pack_query<16> : pack_query<32>)(sizes, task, workspace, stream);
}
void pack_key_panels(const Sizes& sizes, int width, const AttentionBackward& task,
                     const Workspace& workspace, void* stream) {
  (width == 16 ? pack_key<16> : pack_key<32>)(sizes, task, workspace, stream);
}
int64_t fast_stream_bytes(int64_t tokens, int width) {
  return width == 16 ? stream_bytes<16>(tokens) : stream_bytes<32>(tokens);
}

}  // namespace vitrail::kernels::narrow
