#pragma once
/// The factor of the loss in fp16: how it is found while training, and how gradients are freed of it. All on the device:
/// an overflow anywhere makes the global gradient norm non-finite, which every rank sees alike, so that every rank's
/// state is the same and the host waits for nothing.

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/kernels/loss_scale.h"

namespace vitrail::train {

class LossScaler {
 public:
  LossScaler(const config::LossScale& options, at::Device device);

  /// fp32 scalar on the device by which the loss of the next step is multiplied (parallel::Engine::scale_loss_by); one
  /// tensor for good.
  const at::Tensor& factor() const { return factor_; }
  /// `sum` (fp64 scalar): squares of the scaled gradient over all ranks. norm, scale (fp32 scalars): those of
  /// GradientNorm, for the gradient of the loss itself, clipped to max_norm (<= 0: not), scale 0 after an overflow. Then
  /// the state advances.
  void unscale(const at::Tensor& sum, double max_norm, const at::Tensor& norm,
               const at::Tensor& scale);
  /// fp32 [2] on the device, of the last step: its factor, and 1 when the run has failed: overflow at the minimum.
  const at::Tensor& report() const { return report_; }

  /// Waits for the device.
  kernels::LossScaleState state() const;
  void restore(const kernels::LossScaleState& state);

 private:
  kernels::LossScaleRules rules_;
  at::Tensor state_;  // bytes of a LossScaleState
  at::Tensor factor_, report_;
};

/// Null unless the precision is fp16.
std::unique_ptr<LossScaler> make_loss_scaler(const config::Train& options, at::Device device);

}  // namespace vitrail::train
