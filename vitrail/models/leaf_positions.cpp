#include "vitrail/models/leaf_positions.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>

#include "vitrail/core/error.h"
#include "vitrail/models/tokenizer.h"

namespace vitrail::models {

at::Tensor sincos_of_leaves(const at::Tensor& boxes, double unit_pixels, int64_t width) {
  const at::NoGradGuard no_grad;
  const at::Tensor real_BL = real_leaves(boxes);
  const int64_t axes = boxes.size(2) / 2;
  VT_REQUIRE(ConfigError, axes > 0 && width % (2 * axes) == 0 && width >= 4 * axes,
             "[config] the width of sin-cos positions of leaves must be a multiple of {} and at "
             "least {} but is {}; change model.embed_dim (of the decoder: model.decoder_embed_dim)",
             2 * axes, 4 * axes, width);
  const int64_t count = width / (2 * axes);
  // On the device from the start: a copy from the host would wait for the GPU.
  const at::Tensor frequencies_F = (at::arange(count, boxes.options().dtype(at::kDouble)) *
                                    (-std::log(10000.0) / static_cast<double>(count - 1)))
                                       .exp_()
                                       .to(at::kFloat);
  const at::Tensor low = boxes.slice(2, 0, axes).to(at::kFloat);
  const at::Tensor high = boxes.slice(2, axes).to(at::kFloat);
  const at::Tensor centres_BLk = ((low + high) * 0.5 / unit_pixels).flip(-1);
  const at::Tensor angles_BLkF = centres_BLk.unsqueeze(-1) * frequencies_F;
  const at::Tensor waves_BLD = at::cat({angles_BLkF.sin(), angles_BLkF.cos()}, -1).flatten(2);
  return waves_BLD * real_BL.unsqueeze(-1);
}

}  // namespace vitrail::models
