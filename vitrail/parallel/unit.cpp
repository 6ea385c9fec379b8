#include "vitrail/parallel/unit.h"

#include <map>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/f16.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/pinned.h"

namespace vitrail::parallel {
namespace {

uint16_t* halves(const at::Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }

/// Small enough to share between threads, large enough that a thread's start does not count.
constexpr int64_t kGrain = 1 << 16;

/// out = in, rounded to bf16 or fp16, as `out` is.
void round_to_half(const at::Tensor& out, const at::Tensor& in, void* stream) {
  const bool is_fp16 = out.scalar_type() == at::kHalf;
  const float* from = in.data_ptr<float>();
  if (out.is_cuda()) {
    const auto cast = is_fp16 ? kernels::cast_f16 : kernels::cast_bf16;
    return cast(halves(out), from, in.numel(), stream);
  }
  const auto cast = is_fp16 ? kernels::cast_f16_cpu : kernels::cast_bf16_cpu;
  at::parallel_for(0, in.numel(), kGrain,
                   [&](int64_t begin, int64_t end) { cast(halves(out), from, begin, end); });
}

}  // namespace

UnitSet::UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype)
    : UnitSet(model, device, compute_dtype, {}, {}) {}

UnitSet::UnitSet(models::Model& model, at::Device device, at::ScalarType compute_dtype,
                 const LayoutOptions& layout, const UnitMemory& memory)
    : layout_(model, layout), dtype_(compute_dtype), homes_(layout_.units().size()) {
  VT_CHECK(
      compute_dtype == at::kFloat || compute_dtype == at::kBFloat16 || compute_dtype == at::kHalf,
      "[units] the compute type must be fp32, bf16 or fp16 but got {}",
      c10::toString(compute_dtype));
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().device(device);
  allocate_kept(options, memory);
  allocate_whole(options, memory);
  allocate_slices(options, memory);
  take_over(model, memory.initial);
  publish_master();
}

void UnitSet::allocate_kept(const at::TensorOptions& options, const UnitMemory& memory) {
  const auto zeros = [&](int64_t count, at::ScalarType type) {
    return memory.kept_on_host ? pinned_zeros(count, type, options.device())
                               : at::zeros({count}, options.dtype(type));
  };
  master_ = zeros(kept_count(), at::kFloat);
  decay_mask_ = zeros(kept_count() / kAlignment, at::kByte);
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
      home.moving_gradient = MovingTensor(unit.count, options.dtype(at::kFloat));
    else
      home.gradient = gradients, gradients += unit.count;
  }
  const bool fp32 = dtype_ == at::kFloat;
  const bool is_master = fp32 && !is_divided() && master_.device() == options.device();
  weights_ = is_master ? master_ : at::zeros({weights}, compute);
  whole_gradients_ = is_divided() ? at::zeros({gradients}, options.dtype(at::kFloat)) : gradient_;
}

void UnitSet::allocate_slices(const at::TensorOptions& options, const UnitMemory& memory) {
  const Sharding& sharding = layout_.sharding();
  const bool further = sharding.weights > 1 && sharding.kept > 1;
  slice_gradient_ =
      further ? at::zeros({kept_count() * sharding.kept}, options.dtype(at::kFloat)) : gradient_;
  if (memory.weights_on_host) {
    host_weights_ =
        std::make_unique<HostWeights>(kept_count(), kept_ranges(), dtype_, options.device());
    return;
  }
  const bool is_master = dtype_ == at::kFloat && master_.device() == options.device();
  written_by_host_ = memory.kept_on_host && !is_master;
  if (!further && !written_by_host_) return;
  int64_t slices = 0;
  for (size_t u = 0; u < homes_.size(); ++u) {
    if (!weights_in_slot(u)) continue;
    homes_[u].slice = slices;
    slices += slice_count(u);
  }
  slices_ = at::zeros({slices}, options.dtype(dtype_));
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
  if (run.slot->decay) flags_of(decay_mask_, run).fill_(1);
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
    const at::Tensor gradient =
        gradient_in_slot(u) ? home.moving_gradient.tensor() : whole_gradient(u);
    for (const ParameterSlot& slot : unit.slots) {
      const int64_t first = slot.offset - unit.offset;
      at::Tensor parameter = by_name.at(slot.name);
      parameter.set_data(weights.narrow(0, first, slot.count).view(slot.shape));
      parameter.set_grad_dtype(std::nullopt);  // any: autograd adds what it has to fp32
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

at::Tensor UnitSet::whole_gradient(size_t u) const {
  return whole_gradients_.narrow(0, homes_[u].gradient, units()[u].count);
}

int64_t UnitSet::slice_count(size_t u) const {
  return units()[u].kept_count * layout_.sharding().kept;
}

at::Tensor UnitSet::slice_of(const at::Tensor& whole, size_t u) const {
  return whole.narrow(0, layout_.sharding().weights_index * slice_count(u), slice_count(u));
}

at::Tensor UnitSet::piece_of(const at::Tensor& slice, size_t u) const {
  const int64_t count = units()[u].kept_count;
  return slice.narrow(0, layout_.sharding().kept_index * count, count);
}

at::Tensor UnitSet::staying_slice(size_t u) const {
  return slices_.narrow(0, homes_[u].slice, slice_count(u));
}

at::Tensor UnitSet::slice_gradient(size_t u) const {
  return slice_gradient_.narrow(0, units()[u].kept_offset * layout_.sharding().kept,
                                slice_count(u));
}

at::Tensor UnitSet::piece(const at::Tensor& kept, size_t u) const {
  return kept.narrow(0, units()[u].kept_offset, units()[u].kept_count);
}

at::Tensor UnitSet::flags_of(const at::Tensor& flags, const KeptRun& run) {
  return flags.narrow(0, run.kept_offset / kAlignment, (run.count + kAlignment - 1) / kAlignment);
}

at::Tensor UnitSet::view(const at::Tensor& arena, const ParameterSlot& slot) {
  return arena.narrow(0, slot.offset, slot.count).view(slot.shape);
}

void UnitSet::zero_gradients() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> cleared;
  for (const at::Tensor& arena : {gradient_, slice_gradient_, whole_gradients_}) {
    bool is_done = false;
    for (const at::Tensor& other : cleared) is_done |= other.is_same(arena);
    if (is_done) continue;
    at::Tensor(arena).zero_();
    cleared.push_back(arena);
  }
}

at::Tensor UnitSet::published_piece(size_t u, const at::Tensor& slice, void* stream) {
  const at::Tensor place = piece_of(slice, u);
  if (host_weights_) {
    host_weights_->fetch(static_cast<int>(u), place.data_ptr(), stream);
    return place;
  }
  if (written_by_host_) return place;
  if (dtype_ == at::kFloat) return piece(published_, u);
  round_to_half(place, piece(published_, u), stream);
  return place;
}

std::vector<at::Tensor> UnitSet::published_pieces() const {
  std::vector<at::Tensor> pieces;
  for (size_t u = 0; u < homes_.size(); ++u) {
    if (host_weights_)
      pieces.push_back(piece(host_weights_->published(), u));
    else if (!written_by_host_)
      pieces.push_back(piece(master_, u));
    else
      pieces.push_back(
          piece_of(has_staying_slice(u) ? staying_slice(u) : slice_of(whole_weights(u), u), u));
  }
  return pieces;
}

void UnitSet::publish(const at::Tensor& kept_arena) {
  const at::NoGradGuard no_grad;
  if (host_weights_ || written_by_host_) {
    if (host_weights_)  // the device may still read them
      for (size_t u = 0; u < homes_.size(); ++u) host_weights_->wait(static_cast<int>(u));
    const std::vector<at::Tensor> pieces = published_pieces();
    for (size_t u = 0; u < homes_.size(); ++u) at::Tensor(pieces[u]).copy_(piece(kept_arena, u));
    return;
  }
  if (is_divided())
    published_ = kept_arena;
  else if (dtype_ != at::kFloat)
    round_to_half(weights_, kept_arena, current_stream(weights_.device()));
  else if (!kept_arena.is_same(weights_))
    weights_.copy_(kept_arena);
}

}  // namespace vitrail::parallel
