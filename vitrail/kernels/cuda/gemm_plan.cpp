#include "vitrail/kernels/cuda/gemm_plan.h"

#include <algorithm>
#include <cstring>

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

// All that run() is promised; cuBLASLt assumes 256 where it is not told.
constexpr uint32_t kAlignment = 16;

void must(cublasStatus_t status, const char* what) {
  VT_CHECK(status == CUBLAS_STATUS_SUCCESS, "[gemm] cuBLASLt must {} but says {}", what,
           cublasLtGetStatusString(status));
}

template <class Value>
void set(cublasLtMatmulDescOpaque_t& description, cublasLtMatmulDescAttributes_t attribute,
         const Value& value) {
  must(cublasLtMatmulDescSetAttribute(&description, attribute, &value, sizeof value),
       "take an option of a product");
}

void set_bias(cublasLtMatmulDescOpaque_t& description, const void* bias) {
  set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
}

cudaDataType_t data_type(GemmType type) {
  switch (type) {
    case GemmType::e4m3:
      return CUDA_R_8F_E4M3;
    case GemmType::e5m2:
      return CUDA_R_8F_E5M2;
    case GemmType::bf16:
      break;
  }
  return CUDA_R_16BF;
}

void set_scale_pointers(cublasLtMatmulDescOpaque_t& description, const float* of_a,
                        const float* of_b) {
  set(description, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, of_b);
  set(description, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, of_a);
}

void set_scales(cublasLtMatmulDescOpaque_t& description, const GemmShape& shape) {
  const cublasLtMatmulMatrixScale_t mode = shape.row_scales
                                               ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                               : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  set(description, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
  set(description, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
  set(description, CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(shape.fast_sums));
  // Never followed: the library asks whether there are any when it lists algorithms.
  const auto* const somewhere = reinterpret_cast<const float*>(uintptr_t{kAlignment});
  set_scale_pointers(description, somewhere, somewhere);
}

/// A stored matrix of `rows` rows of `columns` values, row-major, is a column-major one of `columns` rows.
void set_layout(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, int64_t rows,
                int64_t columns) {
  must(cublasLtMatrixLayoutInit(&layout, type, static_cast<uint64_t>(columns),
                                static_cast<uint64_t>(rows), columns),
       "take the layout of a matrix");
}

template <class Value>
Value config(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t key) {
  Value value{};
  size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, key, &value, sizeof value, &written);
  return value;
}

void append_new(std::vector<LtAlgorithm>& all, const LtAlgorithm& algorithm) {
  const auto is_same = [&](const LtAlgorithm& other) {
    return std::memcmp(&other.value, &algorithm.value, sizeof algorithm.value) == 0;
  };
  if (std::none_of(all.begin(), all.end(), is_same)) all.push_back(algorithm);
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  VT_REQUIRE(OutOfMemoryError, status != cudaErrorMemoryAllocation,
             "[kernels] {} must fit into the device's memory but does not", what);
  VT_CHECK(status == cudaSuccess, "[kernels] {} must succeed but CUDA says: {}", what,
           cudaGetErrorString(status));
}

CurrentDevice::CurrentDevice(int device) {
  check_cuda(cudaGetDevice(&before_), "asking for the current device");
  check_cuda(cudaSetDevice(device), "making a device current");
}

CurrentDevice::~CurrentDevice() { cudaSetDevice(before_); }

LtProduct::LtProduct(const GemmShape& shape) {
  must(cublasLtMatmulDescInit(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
  const auto operation = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(description, CUBLASLT_MATMUL_DESC_TRANSA, operation(shape.b_transposed));
  set(description, CUBLASLT_MATMUL_DESC_TRANSB, operation(shape.a_transposed));
  const cudaDataType_t out_type = shape.is_f32 ? CUDA_R_32F : CUDA_R_16BF;
  const auto sides = [](bool transposed, int64_t rows, int64_t columns) {
    return transposed ? std::pair(columns, rows) : std::pair(rows, columns);
  };
  const auto [b_rows, b_columns] = sides(shape.b_transposed, shape.k, shape.n);
  const auto [a_rows, a_columns] = sides(shape.a_transposed, shape.m, shape.k);
  set_layout(b, data_type(shape.b_type), b_rows, b_columns);
  set_layout(a, data_type(shape.a_type), a_rows, a_columns);
  set_layout(out, out_type, shape.m, shape.n);
  if (shape.is_fp8()) set_scales(description, shape);
  if (!shape.has_bias) return;
  set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  set(description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
  // Never followed: the library reads the alignment off it when it lists algorithms.
  set_bias(description, reinterpret_cast<const void*>(uintptr_t{kAlignment}));
}

std::vector<LtAlgorithm> own_algorithms(const LtContext& context, const LtProduct& product,
                                        int64_t workspace_bytes, int most) {
  cublasLtMatmulPreferenceOpaque_t preference{};
  must(cublasLtMatmulPreferenceInit(&preference), "prepare a search");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t key, auto value) {
    must(cublasLtMatmulPreferenceSetAttribute(&preference, key, &value, sizeof value),
         "take an option of a search");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
  for (const auto key :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(key, kAlignment);
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
  LtProduct own = product;  // the library takes descriptors as non-constant handles
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(context.handle, &own.description, &own.b, &own.a, &own.out,
                                     &own.out, &preference, most, found.data(), &count);
  std::vector<LtAlgorithm> all;
  if (status != CUBLAS_STATUS_SUCCESS) return all;
  for (int i = 0; i < count; ++i)
    if (found[i].state == CUBLAS_STATUS_SUCCESS)
      append_new(all, {found[i].algo, static_cast<int64_t>(found[i].workspaceSize)});
  return all;
}

bool accepts(const LtContext& context, const LtProduct& product, LtAlgorithm& algorithm) {
  LtProduct own = product;
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(context.handle, &own.description, &own.b, &own.a, &own.out, &own.out,
                              &algorithm.value, &result);
  algorithm.workspace_bytes = static_cast<int64_t>(result.workspaceSize);
  return status == CUBLAS_STATUS_SUCCESS && result.state == CUBLAS_STATUS_SUCCESS &&
         algorithm.workspace_bytes <= context.workspace_bytes;
}

std::vector<LtAlgorithm> candidates(const LtContext& context, const GemmShape& shape) {
  constexpr int kMost = 16;
  const int64_t limits[] = {context.workspace_bytes, context.workspace_bytes / 4, 0};
  const LtProduct product(shape);
  std::vector<LtAlgorithm> all;
  for (const int64_t limit : limits)
    for (const LtAlgorithm& algorithm : own_algorithms(context, product, limit, kMost))
      append_new(all, algorithm);
  if (!shape.has_bias && !shape.adds) return all;
  GemmShape plain = shape;
  plain.has_bias = plain.adds = false;
  for (const int64_t limit : limits)
    for (LtAlgorithm algorithm : own_algorithms(context, LtProduct(plain), limit, kMost))
      if (accepts(context, product, algorithm)) append_new(all, algorithm);
  return all;
}

std::string describe(const cublasLtMatmulAlgo_t& algorithm) {
  std::string words =
      fmt::format("id {} tile {} stages {}", config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID),
                  config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
                  config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID));
  const auto add = [&](const char* name, int64_t value, int64_t usual) {
    if (value != usual) words += fmt::format(" {} {}", name, value);
  };
  add("inner", config<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID), 0);
  add("cluster", config<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID), 0);
  add("swizzle", config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING), 0);
  add("custom", config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION), 0);
  add("splitk", config<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1);
  add("reduction", config<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME), 0);
  return words;
}

cublasStatus_t start(const LtContext& context, LtProduct product, const GemmShape& shape,
                     const GemmOperands& operands, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream) {
  if (shape.has_bias) set_bias(product.description, operands.bias);
  if (shape.is_fp8()) set_scale_pointers(product.description, operands.a_scales, operands.b_scales);
  const void* const a = shape.is_fp8() ? static_cast<const void*>(operands.a8) : operands.a;
  const void* const b = shape.is_fp8() ? static_cast<const void*>(operands.b8) : operands.b;
  const float one = 1.0f, beta = shape.adds ? 1.0f : 0.0f;
  const void* c = operands.c && shape.adds ? operands.c : operands.d;
  return cublasLtMatmul(context.handle, &product.description, &one, b, &product.b, a, &product.a,
                        &beta, c, &product.out, operands.d, &product.out, &algorithm,
                        context.workspace, static_cast<size_t>(context.workspace_bytes), stream);
}

}  // namespace vitrail::kernels
