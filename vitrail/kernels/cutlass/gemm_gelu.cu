#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

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

// Row-major values are column-major ones transposed: the kernel computes D^T [n, m] = B A^T, the bias along its rows.
// Two warp groups take turns at the tensor cores (pingpong): one's erf hides behind the other's product. The tile is
// what won at every width from 768 to 2816.
using Tile = cute::Shape<cute::_128, cute::_128, cute::_64>;
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
using Fusion =
    cutlass::epilogue::fusion::LinCombPerRowBiasEltActAux<Column, cutlass::epilogue::thread::GELU,
                                                          Bf16, float, Bf16, Bf16, void, float>;
constexpr int kPack = 8;  // values of 16 bytes

using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
    cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, Column, kPack, Bf16,
    Column, kPack, cutlass::epilogue::TmaWarpSpecialized, Fusion>::CollectiveOp;
using Main = typename cutlass::gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bf16, Row, kPack, Bf16, Column, kPack,
    float, Tile, Cluster,
    cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
        sizeof(typename Epilogue::SharedStorage))>,
    cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Main, Epilogue,
                                                    cutlass::gemm::PersistentScheduler>;
using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

Gemm::Arguments arguments(const GemmShape& shape, const GemmOperands& operands, uint16_t* aux) {
  const int features = static_cast<int>(shape.n), rows = static_cast<int>(shape.m),
            depth = static_cast<int>(shape.k);
  const auto packed = [](auto stride, int first, int second) {
    return cutlass::make_cute_packed_stride(stride, cute::make_shape(first, second, 1));
  };
  Gemm::Arguments all{
      cutlass::gemm::GemmUniversalMode::kGemm,
      {features, rows, depth, 1},
      {reinterpret_cast<const Bf16*>(operands.b), packed(Kernel::StrideA{}, features, depth),
       reinterpret_cast<const Bf16*>(operands.a), packed(Kernel::StrideB{}, rows, depth)},
      {{},
       nullptr,
       packed(Kernel::StrideC{}, features, rows),
       static_cast<Bf16*>(operands.d),
       packed(Kernel::StrideD{}, features, rows)}};
  auto& fused = all.epilogue.thread;
  fused.alpha = 1.0f;
  fused.beta = 0.0f;
  fused.bias_ptr = reinterpret_cast<const Bf16*>(operands.bias);
  fused.aux_ptr = reinterpret_cast<Bf16*>(aux);
  fused.dAux = packed(Kernel::StrideD{}, features, rows);
  all.hw_info.device_id = current_device();
  all.hw_info.sm_count = multiprocessors(all.hw_info.device_id);
  // Tiles that share operands run together: 2 won or came within a percent at all sizes.
  all.scheduler.max_swizzle_size = 2;
  return all;
}

}  // namespace

bool has_gemm_gelu() { return true; }

bool fits_gemm_gelu(const GemmShape& shape) {
  return !shape.a_transposed && shape.b_transposed && shape.has_bias && !shape.adds &&
         !shape.is_f32 && shape.m > 0 && shape.n % kPack == 0 && shape.k % kPack == 0 &&
         shape.n > 0 && shape.k > 0 && is_capability_90(current_device());
}

int64_t gemm_gelu_workspace_bytes(const GemmShape& shape) {
  return static_cast<int64_t>(Gemm::get_workspace_size(arguments(shape, {}, nullptr)));
}

void gemm_gelu(const GemmShape& shape, const GemmOperands& operands, uint16_t* aux, void* workspace,
               void* stream) {
  if (!fits_gemm_gelu(shape)) refuse_gemm_gelu(shape, "it does not fit the kernel");
  Gemm gemm;
  const auto given = arguments(shape, operands, aux);
  auto status = Gemm::can_implement(given);
  if (status == cutlass::Status::kSuccess)
    status = gemm.initialize(given, workspace, static_cast<cudaStream_t>(stream));
  if (status == cutlass::Status::kSuccess) status = gemm.run(static_cast<cudaStream_t>(stream));
  if (status != cutlass::Status::kSuccess)
    refuse_gemm_gelu(shape, cutlass::cutlassGetStatusString(status));
}

}  // namespace vitrail::kernels
