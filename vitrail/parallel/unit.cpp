#include "vitrail/parallel/unit.h"

#include <map>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/pinned.h"

namespace vitrail::parallel {
namespace {

uint16_t* bf16_pointer(const at::Tensor& tensor) {
  return static_cast<uint16_t*>(tensor.data_ptr());
}

/// Small enough to share between threads, large enough that a thread's start does not count.
constexpr int64_t kGrain = 1 << 16;

/// out = in, rounded.
void round_to_bf16(const at::Tensor& out, const at::Tensor& in) {
  if (out.is_cuda()) {
    kernels::cast_bf16(bf16_pointer(out), in.data_ptr<float>(), in.numel(),
                       current_stream(out.device()));
    return;
  }
  at::parallel_for(0, in.numel(), kGrain, [&](int64_t begin, int64_t end) {
    kernels::cast_bf16_cpu(bf16_pointer(out), in.data_ptr<float>(), begin, end);
  });
}

}  // namespace

UnitSet::UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype)
    : UnitSet(model, device, compute_dtype, {}, {}) {}

UnitSet::UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype,
                 const LayoutOptions& layout, const UnitMemory& memory)
    : layout_(model, layout), dtype_(compute_dtype), homes_(layout_.units().size()) {
  VT_CHECK(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16,
           "[units] the compute type must be fp32 or bf16 but got {}",
           c10::toString(compute_dtype));
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().device(device);
  allocate_kept(options, memory);
  allocate_whole(options, memory);
  allocate_published(options, memory);
  take_over(model, memory.initial);
  publish_master();
}

void UnitSet::allocate_kept(const at::TensorOptions& options, const UnitMemory& memory) {
  const auto zeros = [&](at::ScalarType type) {
    return memory.kept_on_host ? pinned_zeros(kept_count(), type, options.device())
                               : at::zeros({kept_count()}, options.dtype(type));
  };
  master_ = zeros(at::kFloat);
  decay_mask_ = zeros(at::kByte);
  gradient_ = at::zeros({kept_count()}, options.dtype(at::kFloat));
}

void UnitSet::allocate_whole(const at::TensorOptions& options, const UnitMemory& memory) {
  const auto compute = options.dtype(dtype_);
  int64_t weights = 0, gradients = 0;
  for (size_t u = 0; u < homes_.size(); ++u) {
    const Unit& unit = units()[u];
    Home& home = homes_[u];
    if (memory.weights_in_slots && unit.stack && unit.count >= memory.keep_below)
      home.moving_weights = MovingTensor(unit.count, compute);
    else
      home.weights = weights, weights += unit.count;
    if (memory.gradients_in_slots && unit.stack)
      home.moving_gradient = MovingTensor(unit.count, compute);
    else
      home.gradient = gradients, gradients += unit.count;
  }
  const bool fp32 = dtype_ == at::kFloat;
  const bool is_master = fp32 && !is_divided() && master_.device() == options.device();
  weights_ = is_master ? master_ : at::zeros({weights}, compute);
  autograd_ = fp32 && !is_divided() ? gradient_ : at::zeros({gradients}, compute);
  if (!is_divided())
    sum_ = gradient_;
  else
    sum_ = fp32 ? autograd_ : at::zeros({gradients}, options.dtype(at::kFloat));
}

void UnitSet::allocate_published(const at::TensorOptions& options, const UnitMemory& memory) {
  const auto compute = options.dtype(dtype_);
  const Sharding& sharding = layout_.sharding();
  const int64_t slices = kept_count() * sharding.kept;
  const bool further = sharding.weights > 1 && sharding.kept > 1;
  slice_gradient_ = further ? at::zeros({slices}, options.dtype(at::kFloat)) : gradient_;
  if (memory.weights_on_host) {
    host_weights_ =
        std::make_unique<HostWeights>(kept_count(), kept_ranges(), dtype_, options.device());
    published_piece_ = host_weights_->published();
    return;
  }
  const bool is_master = dtype_ == at::kFloat && master_.device() == options.device();
  if (!is_divided())
    published_piece_ = weights_;
  else
    published_piece_ = is_master ? master_ : at::zeros({kept_count()}, compute);
  if (sharding.weights == 1)
    published_ = weights_;
  else
    published_ = further ? at::zeros({slices}, compute) : published_piece_;
}

void UnitSet::take_over(models::Model& model, const InitialValues& initial) {
  std::map<std::string, const ParameterSlot*> slots;
  for_each_slot([&](const ParameterSlot& slot) { slots.emplace(slot.name, &slot); });
  std::map<const ParameterSlot*, KeptRun> runs;
  for (const KeptRun& run : layout_.kept_runs()) runs.emplace(run.slot, run);
  std::vector<nn::NamedTensor> parameters = model.named_parameters();
  for (nn::NamedTensor& parameter : parameters) {
    const auto slot = slots.find(parameter.name);
    const bool is_held = slot != slots.end();
    const auto run = is_held ? runs.find(slot->second) : runs.end();
    if (run != runs.end()) {
      if (initial) initial(parameter);
      fill(run->second, local_part(parameter.tensor.detach(), slot->second->placement));
    }
    parameter.tensor.mutable_grad().reset();
    parameter.tensor.set_data(
        without_memory(parameter.tensor.sizes(), gradient_.options().dtype(dtype_)));
  }
  make_views(parameters);
}

void UnitSet::fill(const KeptRun& run, const at::Tensor& local) {
  master_.narrow(0, run.kept_offset, run.count)
      .copy_(local.reshape(-1).narrow(0, run.start, run.count));
  if (run.slot->decay) decay_mask_.narrow(0, run.kept_offset, run.count).fill_(1);
}

/// The module's tensors become views; identity, name and place in the module stay.
void UnitSet::make_views(const std::vector<nn::NamedTensor>& parameters) {
  std::map<std::string, at::Tensor> by_name;
  for (const nn::NamedTensor& parameter : parameters)
    by_name.emplace(parameter.name, parameter.tensor);
  for (size_t u = 0; u < homes_.size(); ++u) {
    const Unit& unit = units()[u];
    Home& home = homes_[u];
    const at::Tensor weights = weights_in_slot(u) ? home.moving_weights.tensor() : whole_weights(u);
    const at::Tensor gradient = gradient_in_slot(u)
                                    ? home.moving_gradient.tensor()
                                    : autograd_.narrow(0, home.gradient, unit.count);
    for (const ParameterSlot& slot : unit.slots) {
      const int64_t first = slot.offset - unit.offset;
      at::Tensor parameter = by_name.at(slot.name);
      parameter.set_data(weights.narrow(0, first, slot.count).view(slot.shape));
      parameter.mutable_grad() = gradient.narrow(0, first, slot.count).view(slot.shape);
    }
    if (weights_in_slot(u)) home.moving_weights.clear();
    if (gradient_in_slot(u)) home.moving_gradient.clear();
  }
}

std::vector<HostRange> UnitSet::kept_ranges() const {
  std::vector<HostRange> ranges;
  for (const Unit& unit : units()) ranges.push_back({unit.kept_offset, unit.kept_count});
  return ranges;
}

at::Tensor UnitSet::allocate() const { return at::zeros({kept_count()}, master_.options()); }

at::Tensor UnitSet::whole_weights(size_t u) const {
  return weights_.narrow(0, homes_[u].weights, units()[u].count);
}

at::Tensor UnitSet::sum(size_t u) const {
  return sum_.narrow(0, homes_[u].gradient, units()[u].count);
}

at::Tensor UnitSet::slice(const at::Tensor& slices, size_t u) const {
  const int kept = layout_.sharding().kept;
  return slices.narrow(0, units()[u].kept_offset * kept, units()[u].kept_count * kept);
}

at::Tensor UnitSet::piece(const at::Tensor& kept, size_t u) const {
  return kept.narrow(0, units()[u].kept_offset, units()[u].kept_count);
}

at::Tensor UnitSet::view(const at::Tensor& arena, const ParameterSlot& slot) {
  return arena.narrow(0, slot.offset, slot.count).view(slot.shape);
}

void UnitSet::accumulate(size_t u) {
  if (dtype_ == at::kFloat) return;
  const int64_t count = units()[u].count;
  float* sum = sum_.data_ptr<float>() + homes_[u].gradient;
  uint16_t* part = bf16_pointer(autograd_) + homes_[u].gradient;
  if (autograd_.is_cuda()) {
    kernels::accumulate_bf16(sum, part, count, current_stream(autograd_.device()));
    return;
  }
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    kernels::accumulate_bf16_cpu(sum, part, begin, end);
  });
}

void UnitSet::zero_gradients() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> cleared;
  for (const at::Tensor& arena : {gradient_, slice_gradient_, sum_, autograd_}) {
    bool is_done = false;
    for (const at::Tensor& other : cleared) is_done |= other.is_same(arena);
    if (is_done) continue;
    at::Tensor(arena).zero_();
    cleared.push_back(arena);
  }
}

void UnitSet::publish(const at::Tensor& kept_arena) {
  const at::NoGradGuard no_grad;
  const bool is_elsewhere = published_piece_.device() != kept_arena.device();
  if (host_weights_)  // the device may still read them
    for (size_t u = 0; u < homes_.size(); ++u) host_weights_->wait(static_cast<int>(u));
  if (dtype_ == at::kBFloat16 && !is_elsewhere) {
    round_to_bf16(published_piece_, kept_arena);
    return;
  }
  if (is_elsewhere || host_weights_) {
    published_piece_.copy_(kept_arena);
    return;
  }
  if (!is_divided()) {
    if (!kept_arena.is_same(weights_)) weights_.copy_(kept_arena);
    return;
  }
  const bool is_slice = published_.is_same(published_piece_);
  published_piece_ = kept_arena;
  if (is_slice) published_ = kept_arena;
}

}  // namespace vitrail::parallel
