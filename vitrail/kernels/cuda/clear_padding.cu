#include "vitrail/kernels/cuda/clear_padding.h"
#include "vitrail/kernels/cuda/launch.cuh"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kTokensOfBlock = 16;

__global__ void clear_kernel(HeadRows<uint16_t> first, HeadRows<uint16_t> second,
                             const int32_t* lengths, int tokens, int packs) {
  const int64_t sample = blockIdx.x;
  const int begin = max(static_cast<int>(blockIdx.y) * kTokensOfBlock, lengths[sample]);
  const int end = min((static_cast<int>(blockIdx.y) + 1) * kTokensOfBlock, tokens);
  const HeadRows<uint16_t>& rows = blockIdx.z == 0 ? first : second;
  for (int token = begin; token < end; ++token) {
    auto* row = reinterpret_cast<uint4*>(rows.values + sample * rows.sample_stride +
                                         token * rows.token_stride);
    for (int i = static_cast<int>(threadIdx.x); i < packs; i += kThreads)
      row[i] = uint4{0, 0, 0, 0};
  }
}

}  // namespace

void clear_padding(const HeadRows<uint16_t>& first, const HeadRows<uint16_t>& second,
                   const int32_t* lengths, int64_t samples, int64_t tokens, int64_t width,
                   void* stream) {
  const auto chunks = static_cast<unsigned>((tokens + kTokensOfBlock - 1) / kTokensOfBlock);
  launch(clear_kernel,
         Grid{dim3(static_cast<unsigned>(samples), chunks, 2), dim3(kThreads), 0, stream}, first,
         second, lengths, static_cast<int>(tokens), static_cast<int>(width / 8));
}

}  // namespace vitrail::kernels
