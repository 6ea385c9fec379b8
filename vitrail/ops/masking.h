#pragma once
/// Random masking of tokens and the gathers that go with it.
///
/// Shapes   B batch, L tokens, K kept tokens, D width.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

struct Masking {
  at::Tensor keep_BK;  // int64: kept tokens, by ascending noise
  at::Tensor
      restore_BL;      // int64: place of each token in the shuffled order (the inverse permutation)
  at::Tensor mask_BL;  // fp32: 1 = hidden, in the tokens' own order
};

/// Keeps the `keep` tokens of smallest noise; ties go to the lower index.
/// Paper    He et al. 2022, arXiv:2111.06377, "Simple implementation".
Masking random_masking(const at::Tensor& noise_BL, int64_t keep);

/// How many tokens a mask ratio keeps: floor(tokens * (1 - ratio)).
int64_t kept_tokens(int64_t tokens, double mask_ratio);

/// x [B, L, D], ids [B, K] -> [B, K, D]; the gradient scatters back.
at::Tensor gather_tokens(const at::Tensor& x_BLD, const at::Tensor& ids_BK);

}  // namespace vitrail::ops
