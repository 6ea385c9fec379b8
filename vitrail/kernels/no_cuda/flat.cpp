#include "vitrail/kernels/flat.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void sum_squares(const float*, int64_t, double*, double*, void*, const uint8_t*) {
  missing("sum_squares");
}
void clip_scale(const double*, float, float*, float*, void*) { missing("clip_scale"); }
void add_bf16(float*, const uint16_t*, int64_t, void*) { missing("add_bf16"); }
void add_f32(float*, const float*, int64_t, void*) { missing("add_f32"); }
void expand_bf16(float*, const uint16_t*, int64_t, void*) { missing("expand_bf16"); }
void cast_bf16(uint16_t*, const float*, int64_t, void*) { missing("cast_bf16"); }

}  // namespace vitrail::kernels
