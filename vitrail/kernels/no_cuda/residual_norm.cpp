#include "vitrail/kernels/residual_norm.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void residual_norm(const ResidualNorm&, void*) { missing("residual_norm"); }
int64_t residual_norm_partials(const RowShape&) { missing("residual_norm_partials"); }
void residual_norm_backward(const ResidualNormBackward&, void*) {
  missing("residual_norm_backward");
}

}  // namespace vitrail::kernels
