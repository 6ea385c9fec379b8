#include "vitrail/kernels/patch.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void keep_tokens(const TokenShape&, const uint16_t*, const int64_t*, uint16_t*, void*) {
  missing("keep_tokens");
}
void restore_tokens(const RestoreTokens&, void*) { missing("restore_tokens"); }
int64_t restore_tokens_partials(const TokenShape&) { missing("restore_tokens_partials"); }
void restore_tokens_sums(const RestoreTokensSums&, void*) { missing("restore_tokens_sums"); }

}  // namespace vitrail::kernels
