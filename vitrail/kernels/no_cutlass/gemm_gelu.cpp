#include "vitrail/kernels/gemm_gelu.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

void refuse() {
  core::fail("[gemm] the product with GELU needs CUTLASS; run ./script/setup and build with CUDA");
}

}  // namespace

bool has_gemm_gelu() { return false; }
bool fits_gemm_gelu(const GemmShape&) { return false; }
bool fits_gemm_gelu_backward(const GemmShape&) { return false; }
int64_t gemm_gelu_workspace_bytes(const GemmShape&) { return 0; }

void gemm_gelu(const GemmShape&, const GemmOperands&, uint16_t*, void*, void*) { refuse(); }
void gemm_gelu_backward(const GemmShape&, const GemmOperands&, const uint16_t*, void*, void*) {
  refuse();
}

}  // namespace vitrail::kernels
