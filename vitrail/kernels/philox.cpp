#include "vitrail/kernels/philox.h"

#include <algorithm>

namespace vitrail::kernels {

void philox_uniform_cpu(float* out, const int64_t* sample_ids, int64_t batch, int64_t per_sample,
                        const core::DrawKey& key) {
  for (int64_t b = 0; b < batch; ++b) {
    float* row = out + b * per_sample;
    for (int64_t first = 0; first < per_sample; first += 4) {
      const core::Philox4 bits =
          core::draw4(key, static_cast<uint64_t>(sample_ids[b]), static_cast<uint32_t>(first / 4));
      const int64_t count = std::min<int64_t>(4, per_sample - first);
      for (int64_t j = 0; j < count; ++j) row[first + j] = core::to_uniform(bits.x[j]);
    }
  }
}

}  // namespace vitrail::kernels
