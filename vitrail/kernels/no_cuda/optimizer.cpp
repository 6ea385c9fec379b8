#include "vitrail/kernels/optimizer.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void adamw(const Arena&, const AdamwStep&, const float*, void*) {
  core::fail("[kernels] adamw on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

void sgd(const Arena&, const SgdStep&, const float*, void*) {
  core::fail("[kernels] sgd on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::kernels
