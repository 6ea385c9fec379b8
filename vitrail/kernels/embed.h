#pragma once
/// From images to the rows that a trunk reads, bf16: patches out of an image, and tokens behind their prefix.
///
/// Needs    device pointers, 16-byte aligned; widths of tokens a multiple of 8. The same result at every launch.
///          Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

namespace vitrail::kernels {

/// patches[s, l, (c, p, q[, r])] = image[s, c, ...], rounded: a convolution's weight, flattened (ops/patch.h).
struct Patchify {
  int64_t samples = 0, channels = 0;
  int64_t grid[3] = {1, 1, 1};  // patches along each axis, the last one fastest; 2-D: grid[0] = 1
  int64_t patch = 1;
  bool is_volume = false;  // patches reach along grid[0] too
  const float* image = nullptr;
  uint16_t* patches = nullptr;
};
void patchify(const Patchify& task, void* stream);
void patchify_plain(const Patchify& task);

/// all[s, prefix + l] = tokens[s, l] + positions[l];   all[s, p] = prefix_rows[p]
struct JoinTokens {
  int64_t samples = 0, tokens = 0, prefix = 0, width = 0;
  const uint16_t* rows = nullptr;         // [samples, tokens, width]
  const uint16_t* positions = nullptr;    // [tokens, width]; null: none
  const uint16_t* prefix_rows = nullptr;  // [prefix, width]
  uint16_t* all = nullptr;                // [samples, prefix + tokens, width]
};
void join_tokens(const JoinTokens& task, void* stream);
void join_tokens_plain(const JoinTokens& task);

/// rows[s, l] = all[s, prefix + l]: the gradient of join_tokens for `rows`.
struct SplitTokens {
  int64_t samples = 0, tokens = 0, prefix = 0, width = 0;
  const uint16_t* all = nullptr;
  uint16_t* rows = nullptr;
};
void split_tokens(const SplitTokens& task, void* stream);
void split_tokens_plain(const SplitTokens& task);

}  // namespace vitrail::kernels
