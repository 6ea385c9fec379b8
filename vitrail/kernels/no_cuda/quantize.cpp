#include "vitrail/kernels/quantize.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void missing(const char* name) {
  core::fail("[kernels] {} on a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON", name);
}

}  // namespace

void quantize_rows(const QuantizeRows&, void*) { missing("quantize_rows"); }
void transpose_quantized(const TransposeQuantized&, void*) { missing("transpose_quantized"); }

}  // namespace vitrail::kernels
