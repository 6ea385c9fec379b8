#pragma once
/// AdamW whose moments take two bytes an element, or one, instead of four.
///
/// Kept     the first moment, and the root of the second, whose range is half as wide: as bf16, or as fp8 (e4m3) with a
///          power of two for each block of kCompactBlock elements. Both are rounded stochastically: a moment moves by less
///          than the distance of two neighbouring values in most steps, and rounding to the nearest would hold it still.
/// Draws    Philox of (seed, place, update_count): the same bits on CPU and GPU. Where blocks have places that do not depend on
///          the layout, ranks that divide an arena round as one that holds it all.
/// Memory   an update moves 22 (bf16) or 18 (fp8) bytes an element with bf16 compute weights, where AdamW moves 30.
/// Paper    Loshchilov & Hutter 2019, arXiv:1711.05101; moments of 8 bits in blocks: Dettmers et al. 2022, arXiv:2110.02861.
/// Needs    count a multiple of kCompactBlock; 16-byte aligned pointers, all host or all device memory.

#include <cstdint>

#include "vitrail/kernels/optimizer.h"

namespace vitrail::kernels {

constexpr int64_t kCompactBlock = kFlagGroup;

enum class StateType { bf16, fp8 };

struct CompactArena {
  StateType type = StateType::bf16;
  float* master = nullptr;
  const float* gradient = nullptr;
  const uint8_t* decay = nullptr;    // one byte a block: 1 where weight decay applies
  void* first = nullptr;             // mean of gradients
  void* second_root = nullptr;       // root of the mean of squared gradients
  int8_t* first_exponent = nullptr;  // fp8 only: one a block
  int8_t* second_exponent = nullptr;
  float* ema = nullptr;              // optional average of the master weights
  uint16_t* weights_bf16 = nullptr;  // optional compute weights
  const uint64_t* places =
      nullptr;  // optional, of each block: its number for draws; null: in order
  int64_t count = 0;
};

/// As adamw(), over blocks [begin, end) of the arena on the CPU; the form to read and to test against.
void compact_adamw_range(const CompactArena& arena, const AdamwStep& step, uint64_t seed,
                         const float* scale, int64_t begin, int64_t end);
/// The same bits on a GPU, asynchronous on `stream`. throws Error in a build without CUDA.
void compact_adamw(const CompactArena& arena, const AdamwStep& step, uint64_t seed,
                   const float* scale, void* stream);
/// The same with constants that begin_adamw wrote, and the count it left in `pace`.
void compact_adamw_range(const CompactArena& arena, const AdamwFactors& factors,
                         int64_t update_count, uint64_t seed, const float* scale, int64_t begin,
                         int64_t end);
void compact_adamw(const CompactArena& arena, const AdamwFactors* factors, const Pace* pace,
                   uint64_t seed, const float* scale, void* stream);

/// Moments as fp32 (the second as it is, not its root) and back, for checkpoints: expanding, compacting and expanding
/// again gives the same values. Host memory, all blocks.
void expand_moments(const CompactArena& arena, float* first, float* second);
void compact_moments(const CompactArena& arena, const float* first, const float* second);

}  // namespace vitrail::kernels
