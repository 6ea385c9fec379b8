#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/data/normalise_row.h"

#include "vitrail/kernels/vectorize.h"

namespace vitrail::data {
namespace {

/// Always inlined, so that each copy of the vectorized function has its own; a step that is known lets
/// the compiler pick neighbours out of whole vectors.
inline __attribute__((always_inline)) void row(const float* __restrict in, int64_t step,
                                               int64_t count, Normalisation rule,
                                               float* __restrict out) {
  if (rule.clips) {
    for (int64_t i = 0; i < count; ++i) {
      const float scaled = (in[i * step] - rule.low) / rule.span;
      const float kept = scaled < 0.0f ? 0.0f : 1.0f < scaled ? 1.0f : scaled;
      out[i] = (kept - rule.mean) / rule.std;
    }
  } else {
    for (int64_t i = 0; i < count; ++i)
      out[i] = ((in[i * step] - rule.low) / rule.span - rule.mean) / rule.std;
  }
}

}  // namespace

VT_VECTORIZED void normalise_row(const float* in, int64_t step, int64_t count,
                                 const Normalisation& rule, float* out) {
  switch (step) {
    case 1:
      return row(in, 1, count, rule, out);
    case -1:
      return row(in, -1, count, rule, out);
    case 3:
      return row(in, 3, count, rule, out);
    case -3:
      return row(in, -3, count, rule, out);
    default:
      return row(in, step, count, rule, out);
  }
}

}  // namespace vitrail::data
