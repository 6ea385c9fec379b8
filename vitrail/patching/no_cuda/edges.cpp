#include "vitrail/core/error.h"
#include "vitrail/patching/device_edges.h"

namespace vitrail::patching {
namespace {

[[noreturn]] void refuse() {
  core::fail(
      "[patching] edges of a batch on a GPU need a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace

void draw_edge_options(const int64_t*, int64_t, uint64_t, int64_t, int32_t*, void*) { refuse(); }
void to_bytes(const ByteBatch&, void*) { refuse(); }
void edge_maps(const EdgeBatch&, void*) { refuse(); }
void gradient_maps(const EdgeBatch&, void*) { refuse(); }
void variance_maps(const EdgeBatch&, void*) { refuse(); }

}  // namespace vitrail::patching
