#include "vitrail/kernels/f16.h"

#include "vitrail/kernels/vectorize.h"

namespace vitrail::kernels {

VT_VECTORIZED void cast_f16_cpu(uint16_t* __restrict out, const float* __restrict in, int64_t begin,
                                int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = to_f16(in[i]);
}

}  // namespace vitrail::kernels
