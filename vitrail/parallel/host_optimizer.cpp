#include "vitrail/parallel/host_optimizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/kernels/f16.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/kernels/optimizer.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/pinned.h"

namespace vitrail::parallel {
namespace {

/// Elements a thread takes at a time.
constexpr int64_t kGrain = 1 << 16;
constexpr int kSlots = 3;  // units of published weights: written, leaving, still leaving
constexpr int64_t kFloat = sizeof(float), kHalf = sizeof(uint16_t);

int64_t largest_of(const std::vector<HostRange>& units) {
  int64_t largest = 0;
  for (const HostRange& unit : units) largest = std::max(largest, unit.count);
  return largest;
}

std::byte* bytes_at(const at::Tensor& arena, int64_t offset) {
  return static_cast<std::byte*>(arena.data_ptr()) + offset * arena.element_size();
}

}  // namespace

class HostOptimizer::Impl {
 public:
  Impl(HostArenas arenas, std::vector<HostRange> units, HostOptimizerOptions options,
       at::Device device);
  void gradient_ready(int unit, void* stream);
  void step(std::span<const HostSegment> segments, int64_t update_count, const at::Tensor& scale);
  std::vector<State> states();
  void write_state(const State& state);
  void publish_all();

  at::Tensor ema_;  // undefined: none

 private:
  /// Where moments and average of a unit lie now.
  struct Moments {
    float *first = nullptr, *second = nullptr, *ema = nullptr;
  };

  bool adamw() const { return options_.update.kind == "adamw"; }
  std::vector<std::string> names() const;
  float read_scale(const at::Tensor& scale);
  void send_gradient(int unit, const Event& complete);
  Moments take(int unit);
  void give_back(int unit);
  uint16_t* begin_publish(int unit);
  void end_publish(int unit);
  void round_master(int unit, uint16_t* halves) const;
  void update(int unit, std::span<const HostSegment> segments, int64_t update_count, float scale);
  void update_run(const kernels::Arena& run, double learning_rate, int64_t update_count,
                  float scale) const;

  HostArenas arenas_;
  std::vector<HostRange> units_;
  HostOptimizerOptions options_;
  at::Device device_;
  bool copies_, halves_, fp16_, apart_;  // ways there and back; 16 bits are published, of fp16;
                                         // published is not master
  at::Tensor gradient_;                  // on the host
  std::vector<at::Tensor> moments_;      // where they are not in files
  std::unique_ptr<NvmeState> files_;
  bool said_rates_ = false;

  void *in_, *out_;  // side streams: gradients to the host, weights to the device
  Event now_, scale_ready_, done_;
  std::vector<Event> arrived_;
  std::vector<char> sent_;
  PinnedMemory scale_;
  std::array<PinnedMemory, kSlots> slots_;
  std::vector<Event> slot_free_;
};

HostOptimizer::Impl::Impl(HostArenas arenas, std::vector<HostRange> units,
                          HostOptimizerOptions options, at::Device device)
    : arenas_(std::move(arenas)),
      units_(std::move(units)),
      options_(std::move(options)),
      device_(device),
      copies_(options_.copies || device.is_cuda()),
      halves_(!units_.empty() && arenas_.published.at(0).scalar_type() != at::kFloat),
      fp16_(!units_.empty() && arenas_.published.at(0).scalar_type() == at::kHalf),
      apart_(!units_.empty() &&
             arenas_.published.at(0).data_ptr() != bytes_at(arenas_.master, units_[0].offset)),
      in_(side_stream(device)),
      out_(side_stream(device)),
      now_(device),
      scale_ready_(device),
      done_(device),
      sent_(units_.size()),
      scale_(device, kFloat) {
  VT_CHECK(arenas_.master.is_cpu() && arenas_.decay_mask.is_cpu(),
           "[offload] master weights must lie in host memory but are on {}",
           arenas_.master.device().str());
  VT_REQUIRE(ConfigError, !adamw() || options_.update.betas.size() == 2,
             "[optimizer] train.optimizer.betas must hold 2 numbers but holds {}",
             options_.update.betas.size());
  VT_CHECK(arenas_.published.size() == units_.size(),
           "[offload] every unit must have published weights but {} of {} do",
           arenas_.published.size(), units_.size());
  const int64_t count = arenas_.master.numel();
  const at::NoGradGuard no_grad;
  if (!options_.folder.empty())
    files_ = std::make_unique<NvmeState>(options_.folder, options_.rank, units_,
                                         static_cast<int>(names().size()));
  else
    for (size_t i = 0; i < names().size(); ++i)
      moments_.push_back(pinned_zeros(count, at::kFloat, at::kCPU));
  if (options_.ema_decay) {
    ema_ = pinned_zeros(count, at::kFloat, at::kCPU);
    ema_.copy_(arenas_.master);
  }
  gradient_ = copies_ ? pinned_zeros(count, at::kFloat, device_) : arenas_.gradient;
  for (size_t u = 0; u < units_.size(); ++u) arrived_.emplace_back(device_);
  for (PinnedMemory& slot : slots_) {
    if (copies_ && halves_ && !options_.published_on_host)
      slot = PinnedMemory(device_, largest_of(units_) * kHalf);
    slot_free_.emplace_back(device_);
  }
}

std::vector<std::string> HostOptimizer::Impl::names() const {
  if (adamw()) return {"exp_avg", "exp_avg_sq"};
  return {"momentum"};
}

void HostOptimizer::Impl::gradient_ready(int unit, void* stream) {
  if (!copies_ || sent_[unit]) return;
  now_.record(stream);
  send_gradient(unit, now_);
}

void HostOptimizer::Impl::send_gradient(int unit, const Event& complete) {
  const HostRange& range = units_[unit];
  complete.make_wait(in_);
  copy_async(device_, bytes_at(gradient_, range.offset), bytes_at(arenas_.gradient, range.offset),
             range.count * kFloat, in_);
  arrived_[unit].record(in_);
  sent_[unit] = true;
}

/// Waits for everything before the clipping factor; the copies of gradients go on.
float HostOptimizer::Impl::read_scale(const at::Tensor& scale) {
  if (scale.is_cpu() && device_.is_cpu()) return *scale.data_ptr<float>();
  now_.make_wait(in_);
  copy_async(device_, scale_.data(), scale.data_ptr(), kFloat, in_);
  scale_ready_.record(in_);
  for (size_t u = 0; u < units_.size(); ++u)
    if (!sent_[u]) send_gradient(static_cast<int>(u), now_);
  scale_ready_.synchronize();
  return *reinterpret_cast<const float*>(scale_.data());
}

void HostOptimizer::Impl::step(std::span<const HostSegment> segments, int64_t update_count,
                               const at::Tensor& scale) {
  const at::NoGradGuard no_grad;
  void* compute = current_stream(device_);
  now_.record(compute);
  const float factor = read_scale(scale);
  const int count = static_cast<int>(units_.size());
  for (int u = 0; u < count; ++u)
    if (copies_ && !sent_[u]) send_gradient(u, now_);
  sent_.assign(units_.size(), false);
  now_.make_wait(out_);  // the model may still read the weights
  for (int u = 0; u < count; ++u) {
    if (files_ && factor != 0.0f && u + 1 < count) files_->request(u + 1);
    arrived_[u].synchronize();
    if (factor != 0.0f) update(u, segments, update_count, factor);
  }
  done_.record(out_);
  done_.make_wait(compute);
  if (files_ && !std::exchange(said_rates_, true))
    core::log_info("optimizer state in {}: {:.2f} GiB, {}", options_.folder,
                   static_cast<double>(files_->file_bytes()) / (1 << 30), files_->describe());
}

HostOptimizer::Impl::Moments HostOptimizer::Impl::take(int unit) {
  std::vector<float*> at;
  if (files_)
    at = files_->take(unit);
  else
    for (const at::Tensor& arena : moments_)
      at.push_back(arena.data_ptr<float>() + units_[unit].offset);
  Moments moments{.first = at[0]};
  if (adamw()) moments.second = at[1];
  if (ema_.defined()) moments.ema = ema_.data_ptr<float>() + units_[unit].offset;
  return moments;
}

/// Where the 16-bit weights of a unit are to be written; null in fp32.
uint16_t* HostOptimizer::Impl::begin_publish(int unit) {
  if (options_.before_publish) options_.before_publish(unit);
  if (!halves_) return nullptr;
  const size_t slot = static_cast<size_t>(unit % kSlots);
  if (slots_[slot].bytes() == 0) return static_cast<uint16_t*>(arenas_.published[unit].data_ptr());
  slot_free_[slot].synchronize();
  return reinterpret_cast<uint16_t*>(slots_[slot].data());
}

void HostOptimizer::Impl::end_publish(int unit) {
  const HostRange& range = units_[unit];
  const size_t slot = static_cast<size_t>(unit % kSlots);
  if (!apart_ || (halves_ && slots_[slot].bytes() == 0)) return;
  const void* from = halves_ ? slots_[slot].data() : bytes_at(arenas_.master, range.offset);
  const at::Tensor& published = arenas_.published[unit];
  copy_async(device_, published.data_ptr(), from, range.count * published.element_size(), out_);
  slot_free_[slot].record(out_);
}

/// 16-bit weights of a unit.
void HostOptimizer::Impl::round_master(int unit, uint16_t* halves) const {
  const HostRange& range = units_[unit];
  const float* master = arenas_.master.data_ptr<float>() + range.offset;
  const auto cast = fp16_ ? kernels::cast_f16_cpu : kernels::cast_bf16_cpu;
  at::parallel_for(0, range.count, kGrain,
                   [&](int64_t begin, int64_t end) { cast(halves, master, begin, end); });
}

void HostOptimizer::Impl::update(int unit, std::span<const HostSegment> segments,
                                 int64_t update_count, float scale) {
  const HostRange& range = units_[unit];
  const Moments moments = take(unit);
  uint16_t* halves = begin_publish(unit);
  int64_t updated = 0;
  for (const HostSegment& segment : segments) {
    const int64_t first = std::max(segment.offset, range.offset);
    const int64_t count =
        std::min(segment.offset + segment.count, range.offset + range.count) - first;
    if (count <= 0) continue;
    const int64_t inside = first - range.offset;
    kernels::Arena run;
    run.master = arenas_.master.data_ptr<float>() + first;
    run.gradient = gradient_.data_ptr<float>() + first;
    run.decay = arenas_.decay_mask.data_ptr<uint8_t>() + first / kernels::kFlagGroup;
    run.first = moments.first + inside;
    if (moments.second) run.second = moments.second + inside;
    if (moments.ema) run.ema = moments.ema + inside;
    if (halves && !fp16_) run.weights_bf16 = halves + inside;
    run.count = count;
    update_run(run, segment.learning_rate, update_count, scale);
    updated += count;
  }
  VT_CHECK(updated == range.count,
           "[offload] every element of a unit must belong to one segment but {} of {} do", updated,
           range.count);
  if (files_) files_->give_back(unit, /*changed=*/true);
  if (halves && fp16_) round_master(unit, halves);
  end_publish(unit);
}

void HostOptimizer::Impl::update_run(const kernels::Arena& run, double learning_rate,
                                     int64_t update_count, float scale) const {
  const config::Optimizer& chosen = options_.update;
  const double ema_decay = options_.ema_decay.value_or(0.0);
  at::parallel_for(0, run.count, kGrain, [&](int64_t begin, int64_t end) {
    if (adamw())
      kernels::adamw_range(
          run,
          kernels::AdamwStep{learning_rate, chosen.betas[0], chosen.betas[1], chosen.eps,
                             chosen.weight_decay, ema_decay, update_count},
          &scale, begin, end);
    else
      kernels::sgd_range(
          run, kernels::SgdStep{learning_rate, chosen.momentum, chosen.weight_decay, ema_decay},
          &scale, begin, end);
  });
}

std::vector<HostOptimizer::State> HostOptimizer::Impl::states() {
  std::vector<State> states;
  const std::vector<std::string> all = names();
  for (size_t i = 0; i < all.size(); ++i) {
    at::Tensor arena;
    if (files_) {
      arena = pinned_zeros(arenas_.master.numel(), at::kFloat, at::kCPU);
      files_->read(static_cast<int>(i), arena.data_ptr<float>());
    } else {
      arena = moments_[i];
    }
    states.push_back({all[i], arena});
  }
  if (ema_.defined()) states.push_back({"ema", ema_});
  return states;
}

void HostOptimizer::Impl::write_state(const State& state) {
  const at::NoGradGuard no_grad;
  const std::vector<std::string> all = names();
  const auto found = std::ranges::find(all, state.name);
  const bool is_average = state.name == "ema" && ema_.defined();
  VT_CHECK(found != all.end() || is_average, "[offload] there is no optimizer state '{}'",
           state.name);
  const auto i = static_cast<size_t>(found - all.begin());
  if (files_ && !is_average) {
    files_->write(static_cast<int>(i), state.arena.contiguous().data_ptr<float>());
    return;
  }
  const at::Tensor& arena = is_average ? ema_ : moments_[i];
  if (!arena.is_same(state.arena)) arena.copy_(state.arena);
}

void HostOptimizer::Impl::publish_all() {
  if (!apart_) return;
  void* compute = current_stream(device_);
  now_.record(compute);
  now_.make_wait(out_);
  for (int u = 0; u < static_cast<int>(units_.size()); ++u) {
    uint16_t* halves = begin_publish(u);
    if (halves) round_master(u, halves);
    end_publish(u);
  }
  done_.record(out_);
  done_.make_wait(compute);
}

HostOptimizer::HostOptimizer(HostArenas arenas, std::vector<HostRange> units,
                             HostOptimizerOptions options, at::Device device)
    : impl_(std::make_unique<Impl>(std::move(arenas), std::move(units), std::move(options),
                                   device)) {}
HostOptimizer::~HostOptimizer() = default;

void HostOptimizer::gradient_ready(int unit, void* stream) { impl_->gradient_ready(unit, stream); }
void HostOptimizer::step(std::span<const HostSegment> segments, int64_t update_count,
                         const at::Tensor& scale) {
  impl_->step(segments, update_count, scale);
}
std::vector<HostOptimizer::State> HostOptimizer::states() { return impl_->states(); }
void HostOptimizer::write_state(const State& state) { impl_->write_state(state); }
at::Tensor HostOptimizer::ema() const { return impl_->ema_; }
void HostOptimizer::publish() { impl_->publish_all(); }

int64_t HostOptimizer::host_bytes(int64_t kept, int64_t largest, bool adamw, bool averages,
                                  bool bf16, bool in_files) {
  const int64_t moments = kFloat * (adamw ? 2 : 1) * (in_files ? kSlots * largest : kept);
  const int64_t published = bf16 ? kSlots * largest * kHalf : 0;
  return kFloat * kept * (averages ? 3 : 2) + published + moments;
}

}  // namespace vitrail::parallel
