#include "vitrail/kernels/augment.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void augment(const AugmentBatch&, void*) {
  core::fail(
      "[kernels] augmenting a batch on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::kernels
