#include "vitrail/kernels/optimizer.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* what) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", what);
}

}  // namespace

void adamw(const Arena&, const AdamwStep&, const float*, void*) { missing("adamw"); }
void adamw_by(const Arena&, const AdamwFactors*, const float*, void*) { missing("adamw"); }
void sgd(const Arena&, const SgdStep&, const float*, void*) { missing("sgd"); }
void sgd_by(const Arena&, const SgdFactors*, const float*, void*) { missing("sgd"); }
void set_pace(Pace*, double, uint32_t, void*) { missing("set_pace"); }
void begin_adamw(Pace*, const AdamwStep&, const double*, int64_t, const float*, AdamwFactors*,
                 void*) {
  missing("begin_adamw");
}
void begin_sgd(Pace*, const SgdStep&, const double*, int64_t, const float*, SgdFactors*, void*) {
  missing("begin_sgd");
}

}  // namespace vitrail::kernels
