#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/loss_scale.h"

namespace vitrail::kernels {
namespace {

__global__ void unscale_kernel(const double* sum, float max_norm, LossScaleRules rules,
                               LossScaleState* state, float* norm, float* factor, float* next_scale,
                               LossScaleReport* report) {
  unscale(sum, max_norm, rules, state, norm, factor, next_scale, report);
}

}  // namespace

void unscale_on_device(const double* sum, float max_norm, const LossScaleRules& rules,
                       LossScaleState* state, float* norm, float* factor, float* next_scale,
                       LossScaleReport* report, void* stream) {
  launch(unscale_kernel, Grid{1, 1, 0, stream}, sum, max_norm, rules, state, norm, factor,
         next_scale, report);
}

}  // namespace vitrail::kernels
