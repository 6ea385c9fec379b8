#include "vitrail/parallel/unit.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/parallel/device.h"

namespace vitrail::parallel {
namespace {

/// 256 bytes of bf16; the same in fp32, so that the layout of an arena does not depend on the
/// precision.
constexpr int64_t kAlignment = 128;

int64_t aligned(int64_t count) { return (count + kAlignment - 1) / kAlignment * kAlignment; }

Unit lay_out(const models::UnitSpec& spec, int64_t offset) {
  Unit unit{spec.name, spec.stack, spec.block, offset, 0, {}};
  for (const nn::NamedTensor& parameter : spec.parameters) {
    unit.slots.push_back({parameter.name, parameter.tensor.sizes().vec(), offset,
                          parameter.tensor.numel(),
                          models::decays(parameter.name, parameter.tensor)});
    offset += aligned(parameter.tensor.numel());
  }
  unit.count = offset - unit.offset;
  return unit;
}

/// The module's tensor becomes a view of the arena; identity, name and place in the module stay.
void make_view(at::Tensor parameter, const at::Tensor& data, const at::Tensor& gradient) {
  parameter.mutable_grad().reset();
  parameter.set_data(data);
  parameter.mutable_grad() = gradient;
}

uint16_t* bf16_pointer(const at::Tensor& tensor) {
  return static_cast<uint16_t*>(tensor.data_ptr());
}

/// Small enough to share between threads, large enough that a thread's start does not count.
constexpr int64_t kGrain = 1 << 16;

}  // namespace

UnitSet::UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype) {
  VT_CHECK(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16,
           "[units] the compute type must be fp32 or bf16 but got {}",
           c10::toString(compute_dtype));
  std::vector<models::UnitSpec> specs = model.units();
  // Backward completes first what forward used last.
  std::reverse(specs.begin(), specs.end());
  int64_t parameters = 0;
  for (const models::UnitSpec& spec : specs) {
    units_.push_back(lay_out(spec, count_));
    count_ += units_.back().count;
    parameters += static_cast<int64_t>(spec.parameters.size());
  }
  const auto expected = static_cast<int64_t>(model.named_parameters().size());
  VT_CHECK(parameters == expected,
           "[units] units must hold each of the model's {} parameters once but hold {}", expected,
           parameters);

  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().device(device);
  master_ = at::zeros({count_}, options.dtype(at::kFloat));
  gradient_ = at::zeros({count_}, options.dtype(at::kFloat));
  decay_mask_ = at::zeros({count_}, options.dtype(at::kByte));
  const bool same = compute_dtype == at::kFloat;
  weights_ = same ? master_ : at::zeros({count_}, options.dtype(compute_dtype));
  autograd_ = same ? gradient_ : at::zeros({count_}, options.dtype(compute_dtype));

  for (size_t u = 0; u < specs.size(); ++u)
    for (size_t p = 0; p < specs[u].parameters.size(); ++p) {
      const ParameterSlot& slot = units_[u].slots[p];
      const at::Tensor& parameter = specs[u].parameters[p].tensor;
      view(master_, slot).copy_(parameter.detach());
      if (slot.decay) view(decay_mask_, slot).fill_(1);
      make_view(parameter, view(weights_, slot), view(autograd_, slot));
    }
  publish_master();
}

int64_t UnitSet::parameter_count() const {
  int64_t count = 0;
  for_each_slot([&](const ParameterSlot& slot) { count += slot.count; });
  return count;
}

at::Tensor UnitSet::allocate() const { return at::zeros({count_}, master_.options()); }

at::Tensor UnitSet::view(const at::Tensor& arena, const ParameterSlot& slot) {
  return arena.narrow(0, slot.offset, slot.count).view(slot.shape);
}

void UnitSet::accumulate(const Unit& unit) {
  if (autograd_.is_same(gradient_)) return;
  float* sum = gradient_.data_ptr<float>() + unit.offset;
  uint16_t* part = bf16_pointer(autograd_) + unit.offset;
  if (autograd_.is_cuda()) {
    kernels::accumulate_bf16(sum, part, unit.count, current_stream(autograd_.device()));
    return;
  }
  at::parallel_for(0, unit.count, kGrain, [&](int64_t begin, int64_t end) {
    kernels::accumulate_bf16_cpu(sum, part, begin, end);
  });
}

void UnitSet::zero_gradients() {
  const at::NoGradGuard no_grad;
  gradient_.zero_();
  if (!autograd_.is_same(gradient_)) autograd_.zero_();
}

void UnitSet::publish_master() {
  if (weights_.is_same(master_)) return;
  if (weights_.is_cuda()) {
    kernels::cast_bf16(bf16_pointer(weights_), master_.data_ptr<float>(), count_,
                       current_stream(weights_.device()));
    return;
  }
  at::parallel_for(0, count_, kGrain, [&](int64_t begin, int64_t end) {
    kernels::cast_bf16_cpu(bf16_pointer(weights_), master_.data_ptr<float>(), begin, end);
  });
}

}  // namespace vitrail::parallel
