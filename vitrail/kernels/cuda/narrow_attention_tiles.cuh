#pragma once
// The general forms of narrow attention, by products of a warp: the operand that a block streams is packed in tiles of 16
// rows, stored as the words that the lanes of a warp hold of it, so that one 16-byte load a lane gives the operands of two
// products.

#include "vitrail/kernels/cuda/narrow_attention.cuh"

namespace vitrail::kernels::narrow {

constexpr int kTile = 16, kWarps = 4, kThreads = 32 * kWarps;
constexpr int kRowTiles = 2;  // tiles of a warp's own rows
constexpr int kBlockRows = kWarps * kRowTiles * kTile;
constexpr float kNever = -1e30f;  // the score of a token that is not there

/// Words of the "row" operand: contraction over the columns of a tile's rows. Word j of a lane: row g (j < 2) or g + 8,
/// columns 16 step + 2 t + 8 (j % 2) and the next.
struct WordPlace {
  int row, column;
};
__device__ __forceinline__ WordPlace row_word(int step, int lane, int j) {
  return {lane / 4 + j / 2 * 8, step * 16 + lane % 4 * 2 + j % 2 * 8};
}
/// Words of the "column" operand: contraction over the rows. Word j: rows 2 t + 8 (j % 2) and the next, column
/// 16 step + g + 8 (j / 2).
__device__ __forceinline__ WordPlace column_word(int step, int lane, int j) {
  return {lane % 4 * 2 + j % 2 * 8, step * 16 + lane / 4 + j / 2 * 8};
}

/// A stream of tiles of kTileBytes each, brought into shared memory kStageTiles at a time, one stage ahead.
template <int kTileBytes, int kStageTiles, int kUnroll>
struct Stream {
  static constexpr int kStageBytes = kTileBytes * kStageTiles;
  static constexpr size_t kSharedBytes = 2 * kStageBytes;
  static_assert(kStageBytes % 16 == 0, "copied 16 bytes at a time");

  const unsigned char* from;
  unsigned char* shared;

  __device__ __forceinline__ void begin(int stage) const {
    const unsigned char* const source = from + static_cast<int64_t>(stage) * kStageBytes;
    unsigned char* const to = shared + stage % 2 * kStageBytes;
    for (int i = static_cast<int>(threadIdx.x) * 16; i < kStageBytes; i += kThreads * 16)
      cp_async_16(to + i, source + i);
    cp_async_commit();
  }
  /// Calls work(tile's shared memory, index) for every tile in order. Every thread of the block calls it.
  template <class Work>
  __device__ __forceinline__ void each(int tiles, Work work) const {
    const int stages = (tiles + kStageTiles - 1) / kStageTiles;
    begin(0);
    for (int stage = 0; stage < stages; ++stage) {
      cp_async_wait<0>();
      __syncthreads();  // the stage is there for all, and nobody reads the other buffer any more
      if (stage + 1 < stages) begin(stage + 1);
      const unsigned char* const at = shared + stage % 2 * kStageBytes;
      const int left = tiles - stage * kStageTiles;
      const int count = left < kStageTiles ? left : kStageTiles;
#pragma unroll kUnroll
      for (int i = 0; i < count; ++i) work(at + i * kTileBytes, stage * kStageTiles + i);
    }
  }
};

/// Bytes of one section of a tile (16 rows of one operand), and the sections' number in each stream.
template <int kWidth>
constexpr int kSection = kWidth * 32;
template <int kWidth>
using ForwardStream = Stream<2 * kSection<kWidth>, 256 / kWidth, 2>;  // k by rows, v by columns
template <int kWidth>
using QueryStream =
    Stream<3 * kSection<kWidth>, 256 / kWidth, 2>;  // k by rows, v by rows, k by columns
template <int kWidth>
using KeyStream = Stream<4 * kSection<kWidth> + 256, 128 / kWidth,
                         1>;  // q, dout by rows; dout, q by columns; scores

__device__ __forceinline__ uint4 lane_words(const unsigned char* section, int step) {
  return *reinterpret_cast<const uint4*>(section + step * 512 +
                                         static_cast<int>(threadIdx.x) % 32 * 16);
}

/// Tiles of a stream with stages of `stage_tiles`: whole stages, so that copies need no bounds.
constexpr __host__ __device__ int64_t padded_tiles(int64_t tokens, int64_t stage_tiles) {
  return (tokens + kTile * stage_tiles - 1) / (kTile * stage_tiles) * stage_tiles;
}

// Packing (narrow_attention_pack.cu).
void pack_forward_tiles(const Sizes& sizes, int width, const AttentionForward& task,
                        const Workspace& workspace, void* stream);
void pack_query_tiles(const Sizes& sizes, int width, const AttentionBackward& task,
                      const Workspace& workspace, void* stream);
void pack_key_tiles(const Sizes& sizes, int width, const AttentionBackward& task,
                    const Workspace& workspace, void* stream);

}  // namespace vitrail::kernels::narrow
