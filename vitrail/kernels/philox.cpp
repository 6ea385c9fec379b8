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

void philox_uniform_window_cpu(float* out, const int64_t* sample_ids, int64_t batch,
                               const PhiloxWindow& window, const core::DrawKey& key) {
  const int64_t rows = window.rows(), length = window.row_length(), inside = window.row_inside();
  for (int64_t r = 0; r < batch * rows; ++r) {
    float* row = out + r * length;
    const int64_t first = window.row_start(r % rows);
    const int64_t count = first < 0 ? 0 : inside;
    const auto sample = static_cast<uint64_t>(sample_ids[r / rows]);
    core::Philox4 bits{};
    for (int64_t i = 0; i < count; ++i) {
      const auto element = static_cast<uint32_t>(first + i);
      if (i == 0 || element % 4 == 0) bits = core::draw4(key, sample, element / 4);
      row[i] = core::to_uniform(bits.x[element % 4]);
    }
    std::fill(row + count, row + length, -1.0f);
  }
}

}  // namespace vitrail::kernels
