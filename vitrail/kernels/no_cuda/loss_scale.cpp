#include "vitrail/kernels/loss_scale.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void unscale_on_device(const double*, float, const LossScaleRules&, LossScaleState*, float*, float*,
                       float*, LossScaleReport*, void*) {
  core::fail("[kernels] unscale on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::kernels
