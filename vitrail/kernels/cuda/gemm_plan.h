#pragma once
// One product as cuBLASLt sees it, the algorithms it has for it, and their timing.

#include <cstdint>
#include <string>
#include <vector>

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "vitrail/kernels/gemm_table.h"

namespace vitrail::kernels {

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(GemmAlgorithm));

void check_cuda(cudaError_t status, const char* what);

/// Makes a device current while it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

struct LtAlgorithm {
  cublasLtMatmulAlgo_t value{};
  int64_t workspace_bytes = 0;
};

/// Row-major values are column-major ones transposed, so the operands trade places: D^T = op(B)^T op(A)^T.
/// The descriptors are plain values without a destroyer: a copy is a descriptor of its own.
struct LtProduct {
  cublasLtMatmulDescOpaque_t description{};
  cublasLtMatrixLayoutOpaque_t b{}, a{}, out{};

  explicit LtProduct(const GemmShape& shape);
};

struct LtContext {
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

/// What the library offers, its own choice first; empty where it has none.
std::vector<LtAlgorithm> own_algorithms(const LtContext& context, const LtProduct& product,
                                        int64_t workspace_bytes, int most);
/// All that can be worth timing: under several limits of workspace, and for products with a bias or a sum also
/// those the library lists for the plain product only, where it accepts them.
std::vector<LtAlgorithm> candidates(const LtContext& context, const GemmShape& shape);
/// False unless the library accepts the algorithm for this product within the workspace; fills in what it needs.
bool accepts(const LtContext& context, const LtProduct& product, LtAlgorithm& algorithm);
/// "id 66 tile 20 stages 36 cluster 3 splitk 2".
std::string describe(const cublasLtMatmulAlgo_t& algorithm);

cublasStatus_t start(const LtContext& context, LtProduct product, const GemmShape& shape,
                     const GemmOperands& operands, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream);

struct Timed {
  size_t best = 0;
  std::vector<double> ms;  // of each; infinite for one that failed or fell behind
};
/// Runs the algorithms in turns on random values for about `seconds`, and takes the median of each.
Timed time_algorithms(const LtContext& context, const GemmShape& shape,
                      const std::vector<LtAlgorithm>& algorithms, double seconds,
                      cudaStream_t stream);

}  // namespace vitrail::kernels
