#pragma once
/// Tokens taken out of a sequence and put back (masked autoencoders), bf16. Ids are a permutation, so both directions
/// read where the other writes and nothing is added atomically.
///
/// Paper    He et al. 2022, arXiv:2111.06377.
/// Shapes   all: prefix + tokens rows of a sample; kept: prefix + kept rows of a sample. The first `prefix` rows (class
///          and register tokens) stay where they are. keep int64 [samples, kept]; restore int64 [samples, tokens], the
///          place of each token in the shuffled order, of which the first `kept` are kept: as ops/masking.h.
/// Needs    device pointers, 16-byte aligned; width a multiple of 8. The same result at every launch. Asynchronous on
///          `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

namespace vitrail::kernels {

struct TokenShape {
  int64_t samples = 0, tokens = 0, kept = 0, prefix = 0, width = 0;
};

/// kept[s, prefix + k] = all[s, prefix + keep[s, k]]. Also the gradient of restore_tokens for what was kept.
void keep_tokens(const TokenShape& shape, const uint16_t* all, const int64_t* keep, uint16_t* kept,
                 void* stream);
void keep_tokens_plain(const TokenShape& shape, const uint16_t* all, const int64_t* keep,
                       uint16_t* kept);

/// all[s, prefix + l] = (kept[s, prefix + restore[s, l]] where that is kept, else mask_token) + positions[l]. Without
/// token and positions also the gradient of keep_tokens.
struct RestoreTokens {
  TokenShape shape;
  const uint16_t* kept = nullptr;
  const int64_t* restore = nullptr;
  const uint16_t* mask_token = nullptr;        // [width]; null: 0
  const uint16_t* positions = nullptr;         // [tokens, width]; null: none
  const uint16_t* prefix_positions = nullptr;  // [prefix, width]; null: none
  int64_t position_stride = 0;  // from one sample's positions to the next; 0 = the same for all
  uint16_t* all = nullptr;
};
void restore_tokens(const RestoreTokens& task, void* stream);
void restore_tokens_plain(const RestoreTokens& task);

/// What the gradient of restore_tokens adds to those of its parameters, fp32; null: not wanted.
struct RestoreTokensSums {
  TokenShape shape;
  const uint16_t* dall = nullptr;
  const int64_t* restore = nullptr;
  float* dmask_token = nullptr;        // [width]: sum over the hidden tokens
  float* dpositions = nullptr;         // [tokens, width]: sum over samples
  float* dprefix_positions = nullptr;  // [prefix, width]
  float* partials = nullptr;  // restore_tokens_partials(shape) values; null without dmask_token
};
int64_t restore_tokens_partials(const TokenShape& shape);
void restore_tokens_sums(const RestoreTokensSums& task, void* stream);
void restore_tokens_sums_plain(const RestoreTokensSums& task);

}  // namespace vitrail::kernels
