#include "vitrail/nn/part_dropout.h"

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn {

at::Tensor part_dropout(const at::Tensor& x, double rate, const Draws& draws, uint16_t layer,
                        const TokenWindow& tokens, Part channels) {
  if (!draws.training || rate == 0.0) return x;
  const core::DrawKey key = draws.key(core::Stream::dropout, layer);
  if (tokens.whole == 0 && channels.of == 1) return ops::dropout(x, rate, key, draws.sample_ids);
  VT_CHECK(x.dim() == 3, "[dropout] a part must have axes B, T, F but has {}", x.dim());
  const int64_t features = x.size(2);
  return ops::dropout(x, rate, key, draws.sample_ids,
                      {{tokens.start, channels.index * features},
                       {tokens.whole > 0 ? tokens.whole : x.size(1), channels.of * features}});
}

TokenWindow gathered_window(const TokenWindow& tokens, const at::Tensor& y) {
  if (tokens.whole == 0) return tokens;
  // Every rank's run has the same length, so runs that are gathered begin at a multiple of their sum.
  return {tokens.start - tokens.start % y.size(1), tokens.whole};
}

}  // namespace vitrail::nn
