#include "vitrail/kernels/activation.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void activation(const Activation&, void*) { missing("activation"); }
int64_t activation_partials(int64_t, int64_t) { missing("activation_partials"); }
void activation_backward(const ActivationBackward&, void*) { missing("activation_backward"); }
int64_t column_sums_partials(int64_t, int64_t) { missing("column_sums_partials"); }
void column_sums(const uint16_t*, int64_t, int64_t, int64_t, float*, float*, void*) {
  missing("column_sums");
}

}  // namespace vitrail::kernels
