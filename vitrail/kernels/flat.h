#pragma once
/// Small operations over flat arenas: norm and clipping, sums of gradients, casts. CPU forms take a
/// range; CUDA forms are asynchronous on `stream`.
///
/// Needs    16-byte aligned device pointers.

#include <cstdint>

namespace vitrail::kernels {

/// Elements that share one flag (a byte): parameters start at multiples of it.
constexpr int64_t kFlagGroup = 128;

/// Sums are taken in pieces of this many elements, the pieces added in order, so that the result
/// does not depend on the number of threads.
constexpr int64_t kSumPiece = 1 << 15;
/// Partial sums of the CUDA reduction; fixed, so that the result depends on the data alone.
constexpr int64_t kSumPartials = 1056;

/// Sum of x[i]^2 over one piece, in fp64. `counted`: flag i / kFlagGroup is 1 where x[i] counts, 0
/// where it does not; null = all count.
double sum_squares_cpu(const float* x, int64_t count, const uint8_t* counted = nullptr);
/// *sum = sum of x[i]^2: fp32 within a thread, fp64 across threads and blocks. `partials` holds
/// kSumPartials doubles; `counted` as above.
void sum_squares(const float* x, int64_t count, double* partials, double* sum, void* stream,
                 const uint8_t* counted = nullptr);

/// *norm = sqrt(*sum); *scale = min(1, max_norm / (norm + 1e-6)) as torch.nn.utils.clip_grad_norm_;
/// 1 when max_norm <= 0; 0 when the norm is not finite.
void clip_scale_cpu(const double* sum, float max_norm, float* norm, float* scale);
void clip_scale(const double* sum, float max_norm, float* norm, float* scale, void* stream);

/// sum[i] += part[i].
void add_bf16_cpu(float* sum, const uint16_t* part, int64_t begin, int64_t end);
void add_bf16(float* sum, const uint16_t* part, int64_t count, void* stream);
void add_f32_cpu(float* sum, const float* part, int64_t begin, int64_t end);
void add_f32(float* sum, const float* part, int64_t count, void* stream);

/// out[i] = in[i], exactly.
void expand_bf16_cpu(float* out, const uint16_t* in, int64_t begin, int64_t end);
void expand_bf16(float* out, const uint16_t* in, int64_t count, void* stream);

/// out[i] = in[i] rounded to nearest even.
void cast_bf16_cpu(uint16_t* out, const float* in, int64_t begin, int64_t end);
void cast_bf16(uint16_t* out, const float* in, int64_t count, void* stream);

}  // namespace vitrail::kernels
