// Vectorised CPU form of the updates.
#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")

#include "vitrail/kernels/update_element.h"
#include "vitrail/kernels/vectorize.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace vitrail::kernels {

AdamwFactors factors(const AdamwStep& step) { return constants_of(step); }
SgdFactors factors(const SgdStep& step) { return constants_of(step); }

namespace {

template <class Rule, class Factors>
void begin(Pace* pace, const Rule& rule, const double* shares, int64_t count, const float* scale,
           Factors* factors) {
  for (int64_t i = 0; i < count; ++i)
    factors[i] = constants_at(rule, pace->learning_rate, shares[i], pace->updates);
  if (*scale != 0.0f) ++pace->updates;
}

}  // namespace

void begin_adamw_cpu(Pace* pace, const AdamwStep& rule, const double* shares, int64_t count,
                     const float* scale, AdamwFactors* factors) {
  begin(pace, rule, shares, count, scale, factors);
}

void begin_sgd_cpu(Pace* pace, const SgdStep& rule, const double* shares, int64_t count,
                   const float* scale, SgdFactors* factors) {
  begin(pace, rule, shares, count, scale, factors);
}

namespace {

// The loops hold one store stream fewer per call than one big loop would, so that the vectoriser
// sees plain arrays without branches: the update first, then (over a block that is still in cache)
// average and compute weights.
constexpr int64_t kCacheBlock = 2048;

/// x[i] = sqrt(x[i]). Written out because std::sqrt may set errno, which keeps the compiler from
/// vectorising it.
void square_roots(float* x, int64_t count) {
  int64_t i = 0;
#if defined(__SSE2__)
  for (; i + 4 <= count; i += 4) _mm_storeu_ps(x + i, _mm_sqrt_ps(_mm_loadu_ps(x + i)));
#endif
  for (; i < count; ++i) x[i] = root(x[i]);
}

/// The operations of update(Element&, ...), in three loops around the roots; the block stays in
/// cache between them.
VT_VECTORIZED void update_moments(const float* __restrict g, float* __restrict m,
                                  float* __restrict v, float* __restrict roots, int64_t count,
                                  const AdamwFactors f, float scale) {
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = g[i] * scale;
    m[i] = m[i] + f.one_minus_beta1 * (scaled - m[i]);
    v[i] = f.beta2 * v[i] + f.one_minus_beta2 * scaled * scaled;
    roots[i] = v[i];
  }
}

VT_VECTORIZED void update_weights(float* __restrict p, const float* __restrict m,
                                  const float* __restrict roots, bool decays, int64_t count,
                                  const AdamwFactors f) {
  const float keep = decays ? f.keep : 1.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float kept = p[i] * keep;
    p[i] = kept - f.step_size * m[i] / (roots[i] / f.root_correction + f.eps);
  }
}

VT_VECTORIZED void update_block(float* __restrict p, const float* __restrict g, float* __restrict b,
                                bool decays, int64_t count, const SgdFactors f, float scale) {
  for (int64_t i = 0; i < count; ++i) {
    Element e{p[i], g[i], b[i], 0.0f, 0.0f, decays};
    update(e, f, scale);
    p[i] = e.p;
    b[i] = e.m;
  }
}

/// Runs of [begin, begin + count) whose elements share a flag, neighbours with equal flags as one.
template <class Run>
void for_each_flag(const uint8_t* flags, int64_t begin, int64_t count, Run&& run) {
  const int64_t end = begin + count;
  for (int64_t i = begin; i < end;) {
    const bool flag = flags[i / kFlagGroup] != 0;
    int64_t next = i;
    do next = (next / kFlagGroup + 1) * kFlagGroup;
    while (next < end && (flags[next / kFlagGroup] != 0) == flag);
    if (next > end) next = end;
    run(i, next - i, flag);
    i = next;
  }
}

VT_VECTORIZED void average_block(float* __restrict ema, const float* __restrict p, int64_t count,
                                 float one_minus_ema) {
  for (int64_t i = 0; i < count; ++i) ema[i] = ema[i] + one_minus_ema * (p[i] - ema[i]);
}

VT_VECTORIZED void cast_block(uint16_t* __restrict out, const float* __restrict p, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bf16(p[i]);
}

template <class UpdateBlock>
void for_each_block(const Arena& arena, float one_minus_ema, int64_t begin, int64_t end,
                    UpdateBlock&& update_one) {
  for (int64_t i = begin; i < end; i += kCacheBlock) {
    const int64_t count = end - i < kCacheBlock ? end - i : kCacheBlock;
    update_one(i, count);
    if (arena.ema) average_block(arena.ema + i, arena.master + i, count, one_minus_ema);
    if (arena.weights_bf16) cast_block(arena.weights_bf16 + i, arena.master + i, count);
  }
}

}  // namespace

void adamw_range(const Arena& arena, const AdamwStep& step, const float* scale, int64_t begin,
                 int64_t end) {
  adamw_range_by(arena, factors(step), scale, begin, end);
}

void adamw_range_by(const Arena& arena, const AdamwFactors& f, const float* scale, int64_t begin,
                    int64_t end) {
  if (*scale == 0.0f) return;
  for_each_block(arena, f.one_minus_ema, begin, end, [&](int64_t i, int64_t count) {
    float roots[kCacheBlock];
    update_moments(arena.gradient + i, arena.first + i, arena.second + i, roots, count, f, *scale);
    square_roots(roots, count);
    for_each_flag(arena.decay, i, count, [&](int64_t at, int64_t length, bool decays) {
      update_weights(arena.master + at, arena.first + at, roots + (at - i), decays, length, f);
    });
  });
}

void sgd_range(const Arena& arena, const SgdStep& step, const float* scale, int64_t begin,
               int64_t end) {
  sgd_range_by(arena, factors(step), scale, begin, end);
}

void sgd_range_by(const Arena& arena, const SgdFactors& f, const float* scale, int64_t begin,
                  int64_t end) {
  if (*scale == 0.0f) return;
  for_each_block(arena, f.one_minus_ema, begin, end, [&](int64_t i, int64_t count) {
    for_each_flag(arena.decay, i, count, [&](int64_t at, int64_t length, bool decays) {
      update_block(arena.master + at, arena.gradient + at, arena.first + at, decays, length, f,
                   *scale);
    });
  });
}

}  // namespace vitrail::kernels
