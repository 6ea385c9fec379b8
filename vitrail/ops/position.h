#pragma once
/// Fixed sine-cosine position tables.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// One row per cell of `grid` in raster order, fp32 [L, D]. With e_w(t) = [sin(t w_0), ..., cos(t w_0), ...],
/// w_j = 10000^(-j / (w / 2)): 2-D rows are [e_{D/2}(column), e_{D/2}(row)], column first as in facebookresearch/mae;
/// 3-D rows are [e_{D/3}(i), e_{D/3}(j), e_{D/3}(k)] in axis order.
/// throws ConfigError when D is not a multiple of 4 (2-D) or 6 (3-D).
/// Paper    He et al. 2022, arXiv:2111.06377, and its reference code; computed in fp64.
at::Tensor sincos_table(at::IntArrayRef grid, int64_t width);

}  // namespace vitrail::ops
