#include "vitrail/kernels/embed.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void patchify(const Patchify&, void*) { missing("patchify"); }
void join_tokens(const JoinTokens&, void*) { missing("join_tokens"); }
void split_tokens(const SplitTokens&, void*) { missing("split_tokens"); }

}  // namespace vitrail::kernels
