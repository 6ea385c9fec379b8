#include "vitrail/train/recorded_pass.h"

#include <exception>
#include <utility>

#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/core/log.h"

namespace vitrail::train {
namespace {

/// Libraries choose algorithms and allocate workspaces in the first of these.
constexpr int64_t kPlainRuns = 3;

bool same_shapes(data::Batch a, data::Batch b) {
  const std::vector<at::Tensor*> left = a.rows(), right = b.rows();
  if (left.size() != right.size() || a.variables != b.variables) return false;
  // Which of a batch's tensors are there is settled by the sources, so that their number and shapes tell.
  for (size_t i = 0; i < left.size(); ++i)
    if (!left[i]->sizes().equals(right[i]->sizes()) ||
        left[i]->scalar_type() != right[i]->scalar_type())
      return false;
  return true;
}

}  // namespace

RecordedPass::RecordedPass(at::Device device, bool enabled, Pass pass)
    : device_(device), pass_(std::move(pass)) {
  if (enabled && device.is_cuda()) graph_ = std::make_unique<parallel::Graph>(device);
}

/// The first batch settles the shapes.
bool RecordedPass::fits(const data::Batch& batch) {
  if (plain_runs_ == 0) {
    inputs_ = batch;
    for (at::Tensor* tensor : inputs_.rows()) *tensor = tensor->clone();
    return true;
  }
  return same_shapes(inputs_, batch);
}

at::Tensor RecordedPass::run(const data::Batch& batch) {
  if (!graph_ || !fits(batch)) return pass_(batch);
  if (!recorded_ && plain_runs_ >= kPlainRuns) record(batch);
  if (!recorded_) {
    ++plain_runs_;
    if (!graph_) return pass_(batch);
    at::Tensor result;
    graph_->run([&] { result = pass_(batch); });
    return result;
  }
  const at::NoGradGuard no_grad;
  data::Batch given = batch;
  const std::vector<at::Tensor*> to = inputs_.rows(), from = given.rows();
  for (size_t i = 0; i < to.size(); ++i) to[i]->copy_(*from[i], /*non_blocking=*/true);
  graph_->replay();
  return result_;
}

void RecordedPass::record(const data::Batch& batch) {
  inputs_.epoch = batch.epoch;
  try {
    graph_->record([&] { result_ = pass_(inputs_); });
    recorded_ = true;
    core::log_info("a step is one CUDA graph from here on");
  } catch (const std::exception& error) {
    graph_ = nullptr;
    inputs_ = {};
    core::log_warning("a step cannot be one CUDA graph, its work is launched piece by piece: {}",
                      error.what());
  }
}

}  // namespace vitrail::train
