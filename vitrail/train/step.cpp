#include "vitrail/train/step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include "vitrail/core/error.h"
#include "vitrail/data/augment_batch.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/timeline.h"
#include "vitrail/train/assembly.h"

namespace vitrail::train {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Collectives of several ranks, and copies to and from host memory, are issued by the host.
bool can_be_recorded(const models::Model& model, const config::Train& options,
                     parallel::Engine& engine, const Optimizer& optimizer) {
  return options.cuda_graph == "auto" && !options.offload_activations &&
         engine.options().offload == "none" && optimizer.repeats() &&
         engine.groups().mesh().world().size() == 1 && model.repeats();
}

}  // namespace

/// [loss, norm, scale, and in fp16 the loss scale and whether it failed] on the host, once `arrived` has passed. Memory and
/// event are made once and used by many steps.
class StepNumbers {
 public:
  static constexpr int64_t kMost = 5;

  explicit StepNumbers(at::Device device)
      : device_(device), host_(device, kMost * sizeof(float)), arrived_(device) {}
  /// A copy under way writes to this memory. What went wrong on the device others have told.
  ~StepNumbers() {
    try {
      arrived_.synchronize();
    } catch (...) {
    }
  }

  void begin(int64_t of_step, const at::Tensor& on_device) {
    step = of_step;
    count_ = on_device.numel();
    void* stream = parallel::current_stream(device_);
    parallel::copy_async(device_, host_.data(), on_device.const_data_ptr(),
                         static_cast<int64_t>(on_device.nbytes()), stream);
    arrived_.record(stream);
  }
  double loss() const { return at(0); }
  double grad_norm() const { return at(1); }
  bool applied() const { return at(2) != 0.0; }
  bool finite() const { return std::isfinite(loss()) && applied(); }
  double loss_scale() const { return count_ == kMost ? at(3) : 0.0; }
  bool scale_failed() const { return count_ == kMost && at(4) != 0.0; }

  int64_t step = 0;

 private:
  double at(int i) const {
    arrived_.synchronize();
    return static_cast<double>(reinterpret_cast<const float*>(host_.data())[i]);
  }

  at::Device device_;
  int64_t count_ = 0;
  parallel::PinnedMemory host_;
  parallel::Event arrived_;
};

double StepReport::loss() const { return numbers->loss(); }
double StepReport::grad_norm() const { return numbers->grad_norm(); }
bool StepReport::applied() const { return numbers->applied(); }
double StepReport::loss_scale() const { return numbers->loss_scale(); }

Step::Step(models::Model& model, parallel::Engine& engine, Optimizer& optimizer,
           const Schedule& schedule, const config::Train& options, uint64_t seed, bool may_record)
    : model_(model),
      engine_(engine),
      optimizer_(optimizer),
      schedule_(schedule),
      options_(options),
      seed_(seed),
      device_(engine.device()),
      data_group_(engine.groups().along({comm::Axis::replicate, comm::Axis::shard})),
      pass_(device_, may_record && can_be_recorded(model, options, engine, optimizer),
            [this](const data::Batch& batch) { return work(batch); }) {
  scaler_ = make_loss_scaler(options, device_);
  if (!scaler_) return;
  engine_.scale_loss_by(scaler_->factor());
  optimizer_.set_clip(
      [this](const at::Tensor& sum, double max_norm, const at::Tensor& norm,
             const at::Tensor& scale) { scaler_->unscale(sum, max_norm, norm, scale); });
}

Step::~Step() {
  if (!scaler_) return;
  engine_.scale_loss_by({});
  optimizer_.set_clip({});
}

void Step::set_step(int64_t step, int64_t skipped) {
  step_ = step;
  skipped_ = skipped;
  unchecked_ = nullptr;
  optimizer_.set_update_count(update_count());
}

StepReport Step::run(data::Loader& loader, BatchShare* share) {
  const Clock::time_point start = Clock::now();
  data::Batch batch = on_device(share ? share->next(loader) : loader.next(), device_);
  batch = data::augmented(std::move(batch), loader.image_size());
  StepReport report = run(std::move(batch), share ? share->waited_ms() : loader.waited_ms());
  report.step_ms = ms_since(start);
  return report;
}

StepReport Step::run(data::Batch batch, double data_wait_ms) {
  const Clock::time_point start = Clock::now();
  batch = on_device(std::move(batch), device_);
  const double lr = schedule_.at(step_);
  optimizer_.begin_step({lr, static_cast<uint32_t>(step_), update_count()});
  // Leaves are made with the host's help, so this stays in front of what is recorded.
  const nn::Draws draws = draws_of(batch);
  batch = model_.prepared(std::move(batch), draws);
  const at::Tensor numbers = pass_.run(batch);

  // Everything from here on is diagnostics.
  const std::shared_ptr<StepNumbers> before = std::exchange(unchecked_, publish(numbers));
  StepReport report{.step = step_, .lr = lr, .data_wait_ms = data_wait_ms};
  report.numbers = unchecked_;
  report.samples = batch.size() * data_group_.size();
  ++step_;
  if (before) check(*before);
  if (device_.is_cpu()) settle();
  report.step_ms = ms_since(start);
  return report;
}

/// All that the device does in a step, by numbers of its own memory alone. Returns [loss, norm, scale].
at::Tensor Step::work(const data::Batch& batch) {
  engine_.units().zero_gradients();
  const at::Tensor loss = forward_backward(batch);
  const GradientNorm norm = update();
  return numbers_of(loss, norm);
}

GradientNorm Step::update() {
  const parallel::TimedScope host(device_, parallel::Lane::host, nullptr, "optimizer");
  const parallel::TimedScope timed(device_, parallel::Lane::compute,
                                   parallel::current_stream(device_), "optimizer");
  const GradientNorm norm = optimizer_.gradient_norm(options_.clip_grad_norm);
  optimizer_.update(norm);
  return norm;
}

nn::Draws Step::draws_of(const data::Batch& batch) const {
  return {seed_, static_cast<uint32_t>(step_), batch.sample_ids, /*training=*/true,
          optimizer_.step_place()};
}

/// Mean loss of this rank's samples; gradients are averaged over ranks when it returns.
at::Tensor Step::forward_backward(const data::Batch& batch) {
  const parallel::TimedScope timed(device_, parallel::Lane::host, nullptr, "forward and backward");
  return engine_.forward_backward(batch, options_.micro_batches,
                                  [this](const data::Batch& part) { return draws_of(part); });
}

/// Loss (averaged over data ranks, whose batches are equally large), norm and scale; in fp16 the loss scale's report.
at::Tensor Step::numbers_of(const at::Tensor& loss, const GradientNorm& norm) const {
  const at::NoGradGuard no_grad;
  at::Tensor numbers = at::stack({loss.to(at::kFloat), norm.norm, norm.scale});
  if (scaler_) numbers = at::cat({numbers, scaler_->report()});
  if (data_group_.size() > 1)
    data_group_
        .all_reduce({numbers.data_ptr<float>(), 1, core::DType::f32}, comm::Reduce::average,
                    parallel::current_stream(device_))
        .wait();
  return numbers;
}

/// The numbers begin their way to the host.
std::shared_ptr<StepNumbers> Step::publish(const at::Tensor& numbers) {
  const auto is_free = [](const auto& known) { return known.use_count() == 1; };
  auto found = std::ranges::find_if(numbers_, is_free);
  if (found == numbers_.end())
    found = numbers_.insert(found, std::make_shared<StepNumbers>(device_));
  (*found)->begin(step_, numbers);
  return *found;
}

/// Every rank reads the same numbers, so all throw or none.
void Step::check(const StepNumbers& numbers) {
  VT_REQUIRE(NonFiniteError, !numbers.scale_failed(),
             "[train] step {}: the gradient overflows in fp16 although the loss scale is at its "
             "minimum {}; lower train.optimizer.lr, train in bf16, or lower "
             "train.loss_scale.minimum",
             numbers.step, numbers.loss_scale());
  if (numbers.finite()) return;
  if (scaler_ && !numbers.applied()) {
    ++skipped_;
    return;
  }
  if (options_.on_non_finite == "skip") {
    skipped_ += numbers.applied() ? 0 : 1;
    return;
  }
  const bool loss = !std::isfinite(numbers.loss());
  core::fail<core::NonFiniteError>(
      "[train] step {}: {} must be finite but got {} (the update was {}); lower "
      "train.optimizer.lr, clip gradients (train.clip_grad_norm) or set train.on_non_finite=skip",
      numbers.step, loss ? "the loss" : "the gradient norm",
      loss ? numbers.loss() : numbers.grad_norm(), numbers.applied() ? "applied" : "left out");
}

void Step::settle() {
  const std::shared_ptr<StepNumbers> last = std::exchange(unchecked_, nullptr);
  if (last) check(*last);
}

}  // namespace vitrail::train
