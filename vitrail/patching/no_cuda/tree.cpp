#include "vitrail/core/error.h"
#include "vitrail/patching/tree_device.h"

namespace vitrail::patching {
namespace {

[[noreturn]] void refuse() {
  core::fail<core::Error>(
      "[patching] trees on a GPU need a build with CUDA but this one has none; configure with "
      "-DVITRAIL_CUDA=ON");
}

}  // namespace

void sum_cells(const uint8_t*, int64_t, const TreeShape&, int64_t* const*, void*) { refuse(); }
void divide_cells(const TreeShape&, const LevelScores<int64_t>&, int64_t, int64_t, int64_t, Order,
                  int64_t*, int64_t*, void*) {
  refuse();
}
void divide_cells(const TreeShape&, const LevelScores<float>&, int64_t, int64_t, int64_t, Order,
                  int64_t*, int64_t*, void*) {
  refuse();
}
void write_boxes(const TreeShape&, Order, const int64_t*, int64_t, float*, void*) { refuse(); }

}  // namespace vitrail::patching
