#include "vitrail/kernels/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "vitrail/core/error.h"
#include "vitrail/kernels/cuda/gemm_plan.h"

namespace vitrail::kernels {
namespace {

struct Before {
  static auto key(const GemmShape& s) {
    return std::tuple(s.m, s.n, s.k, s.a_transposed, s.b_transposed, s.has_bias, s.adds, s.is_f32,
                      s.a_type, s.b_type, s.row_scales, s.fast_sums);
  }
  bool operator()(const GemmShape& a, const GemmShape& b) const { return key(a) < key(b); }
};

/// A shape with its descriptors and algorithm; a copy can be run while the table changes.
struct Plan {
  LtProduct product;
  LtAlgorithm algorithm;
  double ms = 0, first_ms = 0;
};

std::string device_name(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the device's name");
  return properties.name;
}

std::string library_name() { return fmt::format("cuBLASLt {}", cublasLtGetVersion()); }

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

void validate(const GemmShape& shape, const GemmOperands& operands) {
  const bool has_both = shape.is_fp8()
                            ? operands.a8 && operands.b8 && operands.a_scales && operands.b_scales
                            : operands.a && operands.b;
  VT_CHECK(has_both && operands.d && (operands.bias || !shape.has_bias),
           "[gemm] {}: every operand must be given", to_words(shape));
  VT_CHECK(is_aligned(operands.a) && is_aligned(operands.b) && is_aligned(operands.a8) &&
               is_aligned(operands.b8) && is_aligned(operands.c) && is_aligned(operands.d) &&
               (!shape.has_bias || is_aligned(operands.bias)),
           "[gemm] {}: operands must be aligned to 16 bytes", to_words(shape));
}

void check_fp8(const GemmShape& shape) {
  if (!shape.is_fp8() && shape.b_type == GemmType::bf16) return;
  VT_CHECK(
      shape.is_fp8() && shape.b_type != GemmType::bf16 && !shape.a_transposed &&
          shape.b_transposed && shape.k % 16 == 0 && shape.n % 16 == 0 &&
          (shape.a_type == GemmType::e4m3 || shape.b_type == GemmType::e4m3),
      "[gemm] {}: products of 8 bits must read A as it stands and B transposed, k and n must be "
      "multiples of 16, and one of the operands e4m3",
      to_words(shape));
}

}  // namespace

class GemmLibrary::Impl {
 public:
  Impl(int device, int64_t workspace_bytes) : device_(device) {
    VT_CHECK(workspace_bytes >= 0, "[gemm] workspace_bytes must be at least 0 but got {}",
             workspace_bytes);
    const CurrentDevice current(device_);
    name_ = device_name(device_);
    VT_CHECK(cublasLtCreate(&context_.handle) == CUBLAS_STATUS_SUCCESS,
             "[gemm] cuBLASLt must start on {} but does not", name_);
    context_.workspace_bytes = workspace_bytes;
    if (workspace_bytes > 0)
      check_cuda(cudaMalloc(&context_.workspace, static_cast<size_t>(workspace_bytes)),
                 "the workspace of matrix products");
  }
  ~Impl() {
    if (context_.handle) cublasLtDestroy(context_.handle);
    cudaFree(context_.workspace);
  }

  void run(const GemmShape& shape, const GemmOperands& operands, void* stream) {
    validate(shape, operands);
    const Plan plan = plan_of(shape);
    const cublasStatus_t status = start(context_, plan.product, shape, operands,
                                        plan.algorithm.value, static_cast<cudaStream_t>(stream));
    VT_CHECK(status == CUBLAS_STATUS_SUCCESS, "[gemm] {} must start but cuBLASLt says {} ({})",
             to_words(shape), cublasLtGetStatusString(status), describe(plan.algorithm.value));
  }

  void tune(const std::vector<GemmShape>& shapes, double seconds, void* stream) {
    const CurrentDevice current(device_);
    const double each = seconds / static_cast<double>(std::max<size_t>(shapes.size(), 1));
    for (const GemmShape& shape : shapes) {
      check_fp8(shape);
      const std::vector<LtAlgorithm> all = candidates(context_, shape);
      const Timed timed =
          time_algorithms(context_, shape, all, each, static_cast<cudaStream_t>(stream));
      VT_CHECK(!timed.ms.empty() && std::isfinite(timed.ms[timed.best]),
               "[gemm] {}: no algorithm of cuBLASLt runs", to_words(shape));
      const Plan plan{LtProduct(shape), all[timed.best], timed.ms[timed.best],
                      std::isfinite(timed.ms[0]) ? timed.ms[0] : 0};
      const std::scoped_lock lock(mutex_);
      plans_.insert_or_assign(shape, plan);
    }
  }

  std::vector<GemmRow> rows() const {
    const std::scoped_lock lock(mutex_);
    std::vector<GemmRow> all;
    for (const auto& [shape, plan] : plans_) {
      GemmRow row{{shape, describe(plan.algorithm.value), plan.ms, plan.first_ms}, {}};
      std::memcpy(row.algorithm.data(), &plan.algorithm.value, row.algorithm.size());
      all.push_back(std::move(row));
    }
    return all;
  }

  void save(const std::string& path) const {
    save_gemm_table({name_, library_name(), rows()}, path);
  }

  int load(const std::string& path) {
    const GemmTable table = load_gemm_table(path);
    if (table.device != name_ || table.library != library_name()) return 0;
    int fitting = 0;
    for (const GemmRow& row : table.rows) {
      Plan plan{LtProduct(row.choice.shape), {}, row.choice.ms, row.choice.first_ms};
      std::memcpy(&plan.algorithm.value, row.algorithm.data(), row.algorithm.size());
      if (!accepts(context_, plan.product, plan.algorithm)) continue;
      const std::scoped_lock lock(mutex_);
      plans_.insert_or_assign(row.choice.shape, plan);
      ++fitting;
    }
    return fitting;
  }

 private:
  Plan plan_of(const GemmShape& shape) {
    const std::scoped_lock lock(mutex_);
    if (const auto found = plans_.find(shape); found != plans_.end()) return found->second;
    VT_CHECK(shape.m > 0 && shape.n > 0 && shape.k > 0, "[gemm] {}: every side must be positive",
             to_words(shape));
    check_fp8(shape);
    const LtProduct product(shape);
    const auto own = own_algorithms(context_, product, context_.workspace_bytes, 1);
    VT_CHECK(!own.empty(), "[gemm] {}: cuBLASLt has no algorithm for this product on {}",
             to_words(shape), name_);
    return plans_.emplace(shape, Plan{product, own.front()}).first->second;
  }

  int device_;
  std::string name_;
  LtContext context_;
  mutable std::mutex mutex_;
  std::map<GemmShape, Plan, Before> plans_;
};

GemmLibrary::GemmLibrary(int device, int64_t workspace_bytes)
    : impl_(std::make_unique<Impl>(device, workspace_bytes)) {}
GemmLibrary::~GemmLibrary() = default;

void GemmLibrary::run(const GemmShape& shape, const GemmOperands& operands, void* stream) {
  impl_->run(shape, operands, stream);
}

void GemmLibrary::tune(const std::vector<GemmShape>& shapes, double seconds, void* stream) {
  impl_->tune(shapes, seconds, stream);
}

std::vector<GemmChoice> GemmLibrary::choices() const {
  std::vector<GemmChoice> all;
  for (GemmRow& row : impl_->rows()) all.push_back(std::move(row.choice));
  return all;
}

void GemmLibrary::save(const std::string& path) const { impl_->save(path); }
int GemmLibrary::load(const std::string& path) { return impl_->load(path); }

}  // namespace vitrail::kernels
