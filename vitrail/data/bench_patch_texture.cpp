// Images to measure on: no flat areas only, no noise only, edges of every direction.

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_trilinear3d.h>

#include "vitrail/core/philox.h"
#include "vitrail/data/bench_patch.h"

namespace vitrail::data {
namespace {

/// Uniform in -1 ... 1.
at::Tensor uniform(const std::vector<int64_t>& shape, uint64_t seed, uint16_t layer) {
  at::Tensor values = at::empty(shape, at::kFloat);
  float* out = values.mutable_data_ptr<float>();
  const core::DrawKey key{seed, core::Stream::test, 0, layer};
  const int64_t count = values.numel();
  for (int64_t i = 0; i < count; i += 4) {
    const core::Philox4 words = core::draw4(key, 0, static_cast<uint32_t>(i / 4));
    for (int64_t j = i; j < std::min(i + 4, count); ++j)
      out[j] = static_cast<float>(words.x[j - i]) * 0x1p-31f - 1.0f;
  }
  return values;
}

/// Random values `cell` pixels apart, linear between them.
at::Tensor smooth(const std::vector<int64_t>& shape, int64_t cell, uint64_t seed, uint16_t layer) {
  std::vector<int64_t> coarse = shape;
  for (size_t axis = 2; axis < shape.size(); ++axis)
    coarse[axis] = std::max<int64_t>((shape[axis] + cell - 1) / cell, 2);
  const at::Tensor values = uniform(coarse, seed, layer);
  const at::IntArrayRef sides = at::IntArrayRef(shape).slice(2);
  return sides.size() == 3 ? at::upsample_trilinear3d(values, sides, /*align_corners=*/true)
                           : at::upsample_bilinear2d(values, sides, /*align_corners=*/true);
}

}  // namespace

at::Tensor textures(int64_t n, int64_t channels, const std::vector<int64_t>& sides, uint64_t seed) {
  std::vector<int64_t> shape{n, channels};
  shape.insert(shape.end(), sides.begin(), sides.end());
  at::Tensor waves = smooth(shape, 40, seed, 0);
  waves.add_(smooth(shape, 11, seed, 1), 0.4);
  at::Tensor image = waves.gt(0.15).to(at::kFloat).mul_(0.3).add_(0.35);
  image.add_(waves, 0.15).add_(uniform(shape, seed, 2), 0.015);
  return image.clamp_(0, 1);
}

}  // namespace vitrail::data
