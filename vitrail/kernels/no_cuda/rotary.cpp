#include "vitrail/kernels/rotary.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void refuse() {
  core::fail("[kernels] rotate on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace

void rotate_f32(const float*, const float*, const float*, const RotaryShape&, float*, void*) {
  refuse();
}

void rotate_bf16(const uint16_t*, const float*, const float*, const RotaryShape&, uint16_t*,
                 void*) {
  refuse();
}

}  // namespace vitrail::kernels
