#include "vitrail/patching/blur_scores.h"

#include "vitrail/core/error.h"

namespace vitrail::patching {

void blur_scores_gpu(const BlurLevel&, void*) {
  core::fail<core::Error>(
      "[patching] scores of patches on a GPU need a build with CUDA but this one has none; "
      "configure with -DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::patching
