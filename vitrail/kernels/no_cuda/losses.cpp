#include "vitrail/kernels/losses.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

int64_t cross_entropy_partials(int64_t) { missing("cross_entropy_partials"); }
void cross_entropy(const CrossEntropy&, void*) { missing("cross_entropy"); }
int64_t token_error_partials() { missing("token_error_partials"); }
void token_error(const TokenError&, void*) { missing("token_error"); }

}  // namespace vitrail::kernels
