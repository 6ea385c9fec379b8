#include "vitrail/core/error.h"
#include "vitrail/patching/resample_plan.h"

namespace vitrail::patching {
namespace {

[[noreturn]] void refuse() {
  core::fail(
      "[patching] resampling leaves on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace

void resample_gpu(const LeafMap&, const LeafBatch&, const float*, float*, void*) { refuse(); }
void serialise_labels_gpu(LabelRule, const LeafBatch&, const int64_t*, int64_t*, void*) {
  refuse();
}
void serialise_shares_gpu(const LeafBatch&, const int64_t*, float*, void*) { refuse(); }

}  // namespace vitrail::patching
