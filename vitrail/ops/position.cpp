#include "vitrail/ops/position.h"

#include <cmath>
#include <vector>

#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

/// e_w(position), all sines first.
void write_sincos(float* out, int64_t width, int64_t position) {
  const int64_t half = width / 2;
  for (int64_t j = 0; j < half; ++j) {
    const double angle =
        static_cast<double>(position) / std::pow(10000.0, static_cast<double>(j) / half);
    out[j] = static_cast<float>(std::sin(angle));
    out[half + j] = static_cast<float>(std::cos(angle));
  }
}

}  // namespace

at::Tensor sincos_table(at::IntArrayRef grid, int64_t width) {
  const int64_t axes = static_cast<int64_t>(grid.size());
  VT_REQUIRE(ConfigError, width % (2 * axes) == 0,
             "[config] the width of {}-D sin-cos positions must be a multiple of {} but got {}; "
             "change embed_dim (or "
             "decoder_embed_dim), or set model.pos_embed=learned",
             axes, 2 * axes, width);
  int64_t cells = 1;
  for (const int64_t side : grid) cells *= side;
  at::Tensor table = at::empty({cells, width}, at::kFloat);
  const int64_t part = width / axes;
  for (int64_t cell = 0; cell < cells; ++cell) {
    float* row = table.mutable_data_ptr<float>() + cell * width;
    int64_t rest = cell;
    for (int64_t axis = axes - 1; axis >= 0; --axis) {
      const int64_t place =
          axes == 2 ? 1 - axis : axis;  // the paper's 2-D code puts the column first
      write_sincos(row + place * part, part, rest % grid[axis]);
      rest /= grid[axis];
    }
  }
  return table;
}

}  // namespace vitrail::ops
