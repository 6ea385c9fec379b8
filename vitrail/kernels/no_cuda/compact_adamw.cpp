#include "vitrail/kernels/compact_adamw.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void compact_adamw(const CompactArena&, const AdamwStep&, uint64_t, const float*, void*) {
  core::fail(
      "[kernels] compact_adamw on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace vitrail::kernels
