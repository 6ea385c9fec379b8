#include "vitrail/train/step.h"

#include <chrono>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
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
                     parallel::Engine& engine) {
  return options.cuda_graph == "auto" && options.recompute == "none" &&
         !options.offload_activations && engine.groups().mesh().world().size() == 1 &&
         model.repeats();
}

}  // namespace

/// [loss, norm, scale] on the host, once `arrived` has passed.
class StepNumbers {
 public:
  StepNumbers(int64_t of_step, const at::Tensor& on_device)
      : step(of_step), arrived_(on_device.device()) {
    const auto options = on_device.options().device(at::kCPU).pinned_memory(on_device.is_cuda());
    host_ = at::empty(on_device.sizes(), options);
    host_.copy_(on_device, /*non_blocking=*/true);
    arrived_.record(parallel::current_stream(on_device.device()));
  }
  double loss() const { return at(0); }
  double grad_norm() const { return at(1); }
  bool applied() const { return at(2) != 0.0; }
  bool finite() const { return std::isfinite(loss()) && applied(); }

  const int64_t step;

 private:
  double at(int i) const {
    arrived_.synchronize();
    return static_cast<double>(host_.data_ptr<float>()[i]);
  }

  at::Tensor host_;
  parallel::Event arrived_;
};

double StepReport::loss() const { return numbers->loss(); }
double StepReport::grad_norm() const { return numbers->grad_norm(); }
bool StepReport::applied() const { return numbers->applied(); }

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
      pass_(device_, may_record && can_be_recorded(model, options, engine),
            [this](const data::Batch& batch) { return forward_backward(batch); }) {}

void Step::set_step(int64_t step, int64_t skipped) {
  step_ = step;
  skipped_ = skipped;
  unchecked_ = nullptr;
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
  engine_.units().zero_gradients();
  const nn::Draws draws = draws_of(batch);
  batch = model_.prepared(std::move(batch), draws);
  const at::Tensor loss = pass(batch);
  const double lr = schedule_.at(step_);
  const GradientNorm norm = update(lr);

  // Everything from here on is diagnostics.
  const std::shared_ptr<StepNumbers> before = std::exchange(unchecked_, publish(loss, norm));
  StepReport report{.step = step_, .lr = lr, .data_wait_ms = data_wait_ms};
  report.numbers = unchecked_;
  report.samples = batch.size() * data_group_.size();
  ++step_;
  if (before) check(*before);
  if (device_.is_cpu()) settle();
  report.step_ms = ms_since(start);
  return report;
}

at::Tensor Step::pass(const data::Batch& batch) {
  const parallel::TimedScope timed(device_, parallel::Lane::host, nullptr, "forward and backward");
  return pass_.run(batch);
}

GradientNorm Step::update(double lr) {
  const parallel::TimedScope host(device_, parallel::Lane::host, nullptr, "optimizer");
  const parallel::TimedScope timed(device_, parallel::Lane::compute,
                                   parallel::current_stream(device_), "optimizer");
  const GradientNorm norm = optimizer_.gradient_norm(options_.clip_grad_norm);
  optimizer_.step(lr, update_count() + 1, norm);
  return norm;
}

nn::Draws Step::draws_of(const data::Batch& batch) const {
  return {seed_, static_cast<uint32_t>(step_), batch.sample_ids, /*training=*/true};
}

/// Mean loss of this rank's samples; gradients are averaged over ranks when it returns.
at::Tensor Step::forward_backward(const data::Batch& batch) {
  return engine_.forward_backward(batch, options_.micro_batches,
                                  [this](const data::Batch& part) { return draws_of(part); });
}

/// Loss (averaged over data ranks, whose batches are equally large), norm and scale begin their way to
/// the host.
std::shared_ptr<StepNumbers> Step::publish(const at::Tensor& loss, const GradientNorm& norm) {
  const at::NoGradGuard no_grad;
  const at::Tensor numbers = at::stack({loss.to(at::kFloat), norm.norm, norm.scale});
  if (data_group_.size() > 1)
    data_group_
        .all_reduce({numbers.data_ptr<float>(), 1, core::DType::f32}, comm::Reduce::average,
                    parallel::current_stream(device_))
        .wait();
  return std::make_shared<StepNumbers>(step_, numbers);
}

/// Every rank reads the same numbers, so all throw or none.
void Step::check(const StepNumbers& numbers) {
  if (numbers.finite()) return;
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
