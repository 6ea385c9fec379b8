#include "vitrail/kernels/heads.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void prepare_heads(const Heads&, void*) { missing("prepare_heads"); }
int64_t heads_partials(const HeadsShape&) { missing("heads_partials"); }
void prepare_heads_backward(const HeadsBackward&, void*) { missing("prepare_heads_backward"); }

}  // namespace vitrail::kernels
