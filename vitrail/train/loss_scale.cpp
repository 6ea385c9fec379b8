#include "vitrail/train/loss_scale.h"

#include <cmath>
#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vitrail/parallel/device.h"

namespace vitrail::train {
namespace {

using kernels::LossScaleReport;
using kernels::LossScaleState;

template <class T>
T* pointer(const at::Tensor& bytes) {
  return static_cast<T*>(bytes.data_ptr());
}

}  // namespace

LossScaler::LossScaler(const config::LossScale& options, at::Device device)
    : rules_{.window = options.window,
             .hysteresis = options.hysteresis,
             .minimum = options.minimum,
             .consecutive_hysteresis = options.consecutive_hysteresis,
             .is_fixed = options.fixed > 0} {
  const auto on_device = at::TensorOptions().device(device);
  state_ = at::empty({static_cast<int64_t>(sizeof(LossScaleState))}, on_device.dtype(at::kByte));
  factor_ = at::zeros({}, on_device.dtype(at::kFloat));
  report_ = at::zeros({2}, on_device.dtype(at::kFloat));
  restore({.scale = rules_.is_fixed ? options.fixed
                                    : std::exp2(static_cast<double>(options.initial_power)),
           .hysteresis = options.hysteresis});
}

void LossScaler::unscale(const at::Tensor& sum, double max_norm, const at::Tensor& norm,
                         const at::Tensor& scale) {
  auto* state = pointer<LossScaleState>(state_);
  auto* report = pointer<LossScaleReport>(report_);
  const auto most = static_cast<float>(max_norm);
  if (state_.is_cuda())
    kernels::unscale_on_device(sum.data_ptr<double>(), most, rules_, state, norm.data_ptr<float>(),
                               scale.data_ptr<float>(), factor_.data_ptr<float>(), report,
                               parallel::current_stream(state_.device()));
  else
    kernels::unscale(sum.data_ptr<double>(), most, rules_, state, norm.data_ptr<float>(),
                     scale.data_ptr<float>(), factor_.data_ptr<float>(), report);
}

LossScaleState LossScaler::state() const {
  const at::Tensor host = state_.to(at::kCPU);
  LossScaleState state;
  std::memcpy(&state, host.data_ptr(), sizeof state);
  return state;
}

void LossScaler::restore(const LossScaleState& state) {
  const at::NoGradGuard no_grad;
  at::Tensor host = at::empty(state_.sizes(), state_.options().device(at::kCPU));
  std::memcpy(host.data_ptr(), &state, sizeof state);
  state_.copy_(host);
  factor_.fill_(state.scale);
  report_.zero_();
}

std::unique_ptr<LossScaler> make_loss_scaler(const config::Train& options, at::Device device) {
  if (!(options.precision == "fp16")) return nullptr;
  return std::make_unique<LossScaler>(options.loss_scale, device);
}

}  // namespace vitrail::train
