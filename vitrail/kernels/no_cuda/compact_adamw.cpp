#include "vitrail/kernels/compact_adamw.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void compact_adamw(const CompactArena&, const AdamwStep&, uint64_t, const float*, void*) {
  core::fail(
      "[kernels] compact_adamw on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

void compact_adamw(const CompactArena& arena, const AdamwFactors*, const Pace*, uint64_t seed,
                   const float* scale, void* stream) {
  compact_adamw(arena, AdamwStep{}, seed, scale, stream);
}

}  // namespace vitrail::kernels
