#pragma once
/// AdamW and SGD updates over flat arenas: master weights, moments, average and compute weights in
/// one pass.
///
/// Each has three forms that agree bit for bit where the compiler does not contract a*b+c: `_plain`
/// is the loop to read and to test against, `_range` the vectorised CPU loop over [begin, end) that
/// callers run on several threads, and the form with a stream the CUDA kernel. Paper    Loshchilov
/// & Hutter 2019, arXiv:1711.05101, algorithm 2; order of operations as torch.optim. Memory   AdamW
/// moves 28 bytes an element in fp32, 30 with bf16 compute weights, 8 more with an average. Needs
/// `count` elements behind every pointer that is not null, 16-byte aligned; a flag for each group.

#include <cstdint>

#include "vitrail/kernels/flat.h"  // kFlagGroup

namespace vitrail::kernels {

/// What one update reads and writes. Pointers are all host or all device memory.
struct Arena {
  float* master = nullptr;
  const float* gradient = nullptr;
  const uint8_t* decay = nullptr;    // of each kFlagGroup elements: 1 where weight decay applies
  float* first = nullptr;            // AdamW: mean of gradients; SGD: momentum buffer
  float* second = nullptr;           // AdamW: mean of squared gradients
  float* ema = nullptr;              // optional average of the master weights
  uint16_t* weights_bf16 = nullptr;  // optional compute weights
  int64_t count = 0;
};

struct AdamwStep {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
  double ema_decay = 0.0;
  int64_t update_count = 1;  // 1-based, for the bias correction
};

/// The constants of one AdamW update, computed in double and rounded once.
struct AdamwFactors {
  float keep;  // 1 - lr * weight_decay
  float one_minus_beta1;
  float beta2, one_minus_beta2;
  float root_correction;  // sqrt(1 - beta2^t)
  float step_size;        // lr / (1 - beta1^t)
  float eps;
  float one_minus_ema;
};
AdamwFactors factors(const AdamwStep& step);

/// Where training stands, in memory beside the arena: work that was recorded once reads it anew each time it is repeated.
struct Pace {
  double learning_rate = 0.0;
  int64_t updates = 0;  // applied so far; Adam's bias correction counts the next one
  uint32_t step = 0;    // place of random draws (core::DrawKey::step_place)
  uint32_t unused = 0;
};
/// Sets the rate and the step; the count stays. Asynchronous: the values travel with the launch.
void set_pace(Pace* pace, double learning_rate, uint32_t step, void* stream);
/// Counts an update unless `*scale` is 0, and writes the constants of learning rate times shares[i] to factors[i]; rate and
/// count of `rule` are not read. The same bits as factors() on the host: products, quotients and roots of doubles, rounded
/// one by one, with powers by repeated squaring.
/// Needs    shares, factors, scale and pace in memory of one device.
void begin_adamw(Pace* pace, const AdamwStep& rule, const double* shares, int64_t count,
                 const float* scale, AdamwFactors* factors, void* stream);
void begin_adamw_cpu(Pace* pace, const AdamwStep& rule, const double* shares, int64_t count,
                     const float* scale, AdamwFactors* factors);

/// p *= 1 - lr wd (where it decays); g *= scale; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g g;
/// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps); ema += (1 - d)(p - ema).
/// `scale` points to one float beside the arena; 0 means: leave everything as it is.
void adamw_plain(const Arena& arena, const AdamwStep& step, const float* scale);
void adamw_range(const Arena& arena, const AdamwStep& step, const float* scale, int64_t begin,
                 int64_t end);
void adamw(const Arena& arena, const AdamwStep& step, const float* scale, void* stream);
/// The same with constants that begin_adamw wrote, beside the arena.
void adamw_range_by(const Arena& arena, const AdamwFactors& factors, const float* scale,
                    int64_t begin, int64_t end);
void adamw_by(const Arena& arena, const AdamwFactors* factors, const float* scale, void* stream);

struct SgdStep {
  double learning_rate = 1e-2, momentum = 0.9, weight_decay = 0.0, ema_decay = 0.0;
};

struct SgdFactors {
  float learning_rate, momentum, weight_decay, one_minus_ema;
};
SgdFactors factors(const SgdStep& step);
/// As begin_adamw.
void begin_sgd(Pace* pace, const SgdStep& rule, const double* shares, int64_t count,
               const float* scale, SgdFactors* factors, void* stream);
void begin_sgd_cpu(Pace* pace, const SgdStep& rule, const double* shares, int64_t count,
                   const float* scale, SgdFactors* factors);

/// As torch.optim.SGD: weight decay is part of the gradient (L2), not decoupled.
/// g = scale g + wd p (where it decays); b = mu b + g; p -= lr b; ema += (1 - d)(p - ema). `scale`
/// as for AdamW.
void sgd_plain(const Arena& arena, const SgdStep& step, const float* scale);
void sgd_range(const Arena& arena, const SgdStep& step, const float* scale, int64_t begin,
               int64_t end);
void sgd(const Arena& arena, const SgdStep& step, const float* scale, void* stream);
void sgd_range_by(const Arena& arena, const SgdFactors& factors, const float* scale, int64_t begin,
                  int64_t end);
void sgd_by(const Arena& arena, const SgdFactors* factors, const float* scale, void* stream);

}  // namespace vitrail::kernels
