#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include "vitrail/kernels/cuda/slope.cuh"
#include "vitrail/kernels/cutlass/gemm_gelu_check.h"
#include "vitrail/kernels/gemm_gelu.h"
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>

namespace vitrail::kernels {
namespace {

using Bf16 = cutlass::bfloat16_t;
using Column = cutlass::layout::ColumnMajor;
using Row = cutlass::layout::RowMajor;

// What CUTLASS calls with packs of values. Its own GELU takes erff, which costs more than the product hides.
template <class T>
struct Gelu {
  CUTLASS_DEVICE T operator()(const T& x) const {
    return slope<ActivationKind::gelu_erf>(x, 0.0f).value;
  }
};
template <class T, int kCount>
struct Gelu<cutlass::Array<T, kCount>> {
  CUTLASS_DEVICE cutlass::Array<T, kCount> operator()(const cutlass::Array<T, kCount>& x) const {
    cutlass::Array<T, kCount> y;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) y[i] = Gelu<T>{}(x[i]);
    return y;
  }
};

template <class T>
struct GeluSlope {
  CUTLASS_DEVICE T operator()(const T& dy, const T& x) const {
    return dy * slope<ActivationKind::gelu_erf>(x, 0.0f).dpre;
  }
};
template <class T, int kCount>
struct GeluSlope<cutlass::Array<T, kCount>> {
  CUTLASS_DEVICE cutlass::Array<T, kCount> operator()(const cutlass::Array<T, kCount>& dy,
                                                      const cutlass::Array<T, kCount>& x) const {
    cutlass::Array<T, kCount> dx;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) dx[i] = GeluSlope<T>{}(dy[i], x[i]);
    return dx;
  }
};

using Forward = cutlass::epilogue::fusion::LinCombPerRowBiasEltActAux<Column, Gelu, Bf16, float,
                                                                      Bf16, Bf16, void, float>;
using Backward =
    cutlass::epilogue::fusion::LinCombDeEltAct<Column, GeluSlope, Bf16, float, Bf16, void, float>;

// Row-major values are column-major ones transposed: the kernel computes D^T [n, m] = B A^T, the bias along its rows.
// Two warp groups take turns at the tensor cores (pingpong): one's GELU hides behind the other's product. The tile is
// what won at every width from 768 to 2816.
using Tile = cute::Shape<cute::_128, cute::_128, cute::_64>;
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;

/// `Order` is that of B as the first operand, [n, k].
template <class Fusion, class Order>
struct Product {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, Column, kPack, Bf16,
      Column, kPack, cutlass::epilogue::TmaWarpSpecialized, Fusion>::CollectiveOp;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bf16, Order, kPack, Bf16, Column, kPack,
      float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Main,
                                                      Epilogue, cutlass::gemm::PersistentScheduler>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static typename Gemm::Arguments arguments(const GemmShape& shape, const GemmOperands& operands) {
    const int features = static_cast<int>(shape.n), rows = static_cast<int>(shape.m),
              depth = static_cast<int>(shape.k);
    const auto packed = [](auto stride, int first, int second) {
      return cutlass::make_cute_packed_stride(stride, cute::make_shape(first, second, 1));
    };
    typename Gemm::Arguments all{cutlass::gemm::GemmUniversalMode::kGemm,
                                 {features, rows, depth, 1},
                                 {reinterpret_cast<const Bf16*>(operands.b),
                                  packed(typename Kernel::StrideA{}, features, depth),
                                  reinterpret_cast<const Bf16*>(operands.a),
                                  packed(typename Kernel::StrideB{}, rows, depth)},
                                 {{},
                                  nullptr,
                                  packed(typename Kernel::StrideC{}, features, rows),
                                  static_cast<Bf16*>(operands.d),
                                  packed(typename Kernel::StrideD{}, features, rows)}};
    all.epilogue.thread.alpha = 1.0f;
    all.epilogue.thread.beta = 0.0f;
    all.epilogue.thread.dAux = packed(typename Kernel::StrideD{}, features, rows);
    all.hw_info.device_id = current_device();
    all.hw_info.sm_count = multiprocessors(all.hw_info.device_id);
    // Tiles that share operands run together: 2 won or came within a percent at all sizes.
    all.scheduler.max_swizzle_size = 2;
    return all;
  }

  static void run(const GemmShape& shape, const typename Gemm::Arguments& given, void* workspace,
                  void* stream) {
    Gemm gemm;
    auto status = Gemm::can_implement(given);
    if (status == cutlass::Status::kSuccess)
      status = gemm.initialize(given, workspace, static_cast<cudaStream_t>(stream));
    if (status == cutlass::Status::kSuccess) status = gemm.run(static_cast<cudaStream_t>(stream));
    if (status != cutlass::Status::kSuccess)
      refuse_gemm_gelu(shape, cutlass::cutlassGetStatusString(status));
  }
};

using Up = Product<Forward, Row>;
using Down = Product<Backward, Column>;

bool fits(const GemmShape& shape) {
  return !shape.a_transposed && !shape.adds && !shape.is_f32 && shape.m > 0 && shape.n > 0 &&
         shape.k > 0 && shape.n % kPack == 0 && shape.k % kPack == 0 &&
         is_capability_90(current_device());
}

}  // namespace

bool has_gemm_gelu() { return true; }

bool fits_gemm_gelu(const GemmShape& shape) {
  return shape.b_transposed && shape.has_bias && fits(shape);
}

bool fits_gemm_gelu_backward(const GemmShape& shape) {
  return !shape.b_transposed && !shape.has_bias && fits(shape);
}

int64_t gemm_gelu_workspace_bytes(const GemmShape& shape) {
  return static_cast<int64_t>(shape.b_transposed
                                  ? Up::Gemm::get_workspace_size(Up::arguments(shape, {}))
                                  : Down::Gemm::get_workspace_size(Down::arguments(shape, {})));
}

void gemm_gelu(const GemmShape& shape, const GemmOperands& operands, uint16_t* aux, void* workspace,
               void* stream) {
  if (!fits_gemm_gelu(shape)) refuse_gemm_gelu(shape, "it does not fit the kernel");
  auto given = Up::arguments(shape, operands);
  given.epilogue.thread.bias_ptr = reinterpret_cast<const Bf16*>(operands.bias);
  given.epilogue.thread.aux_ptr = reinterpret_cast<Bf16*>(aux);
  Up::run(shape, given, workspace, stream);
}

void gemm_gelu_backward(const GemmShape& shape, const GemmOperands& operands, const uint16_t* aux,
                        void* workspace, void* stream) {
  if (!fits_gemm_gelu_backward(shape)) refuse_gemm_gelu(shape, "it does not fit the kernel");
  auto given = Down::arguments(shape, operands);
  given.epilogue.thread.aux_ptr = reinterpret_cast<const Bf16*>(aux);
  Down::run(shape, given, workspace, stream);
}

}  // namespace vitrail::kernels
