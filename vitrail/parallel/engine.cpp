#include "vitrail/parallel/engine.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/data_parallel.h"
#include "vitrail/parallel/pipeline.h"
#include "vitrail/parallel/sequence.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::parallel {

using comm::Axis;

LayoutOptions layout_options(models::Model&, const config::Recipe& recipe, const MeshPlace& place) {
  LayoutOptions options;
  options.placement =
      tensor_placement(recipe, place.size(Axis::tensor), place.coordinate(Axis::tensor));
  return options;
}

class Engine::Impl {
 public:
  Impl(models::Model& model, const config::Recipe& recipe, comm::Mesh& mesh, at::Device device,
       at::ScalarType compute_dtype)
      : model_(model),
        groups_(mesh, device),
        tensor_(model, recipe, groups_),
        sequence_(model, recipe, groups_),
        pipeline_(model, recipe, groups_),
        units_(model, device, compute_dtype),
        reducer_(model, units_, groups_.along({Axis::replicate, Axis::shard}),
                 recipe.parallel.bucket_mib) {}

  models::Model& model_;
  Groups groups_;
  TensorParallel tensor_;
  SequenceParallel sequence_;
  Pipeline pipeline_;
  UnitSet units_;
  GradientReducer reducer_;
};

Engine::Engine(models::Model& model, const config::Recipe& recipe, comm::Mesh& mesh,
               at::Device device, at::ScalarType compute_dtype)
    : impl_(std::make_unique<Impl>(model, recipe, mesh, device, compute_dtype)) {}
Engine::~Engine() = default;

UnitSet& Engine::units() { return impl_->units_; }
Groups& Engine::groups() { return impl_->groups_; }
at::Device Engine::device() const { return impl_->groups_.device(); }

void Engine::broadcast_weights() {
  parallel::broadcast_weights(impl_->units_, impl_->groups_.along({Axis::replicate, Axis::shard}));
}

void Engine::publish(const at::Tensor& kept_arena) {
  const at::NoGradGuard no_grad;
  if (!kept_arena.is_same(impl_->units_.weights())) impl_->units_.weights().copy_(kept_arena);
}

at::Tensor Engine::forward_backward(const data::Batch& batch, int64_t pieces,
                                    const std::function<nn::Draws(const data::Batch&)>& draws_of) {
  const int64_t piece = batch.size() / pieces;
  VT_REQUIRE(ConfigError, piece * pieces == batch.size(),
             "[train] train.micro_batches must divide the samples of a rank but got {} and {}",
             pieces, batch.size());
  at::Tensor loss;
  for (int64_t micro = 0; micro < pieces; ++micro) {
    data::Batch samples = batch;
    if (pieces > 1)
      for (at::Tensor* tensor : samples.rows()) *tensor = tensor->narrow(0, micro * piece, piece);
    const models::Output output = impl_->model_.forward(samples, draws_of(samples));
    VT_REQUIRE(DataError, output.loss.defined(),
               "[train] a training batch must have labels but has none");
    const at::Tensor share = output.loss / static_cast<double>(pieces);
    impl_->reducer_.begin_backward(micro + 1 == pieces);
    share.backward();
    impl_->reducer_.end_backward();
    loss = loss.defined() ? loss + share.detach() : share.detach();
  }
  return loss;
}

models::Output Engine::evaluate(const data::Batch& batch, const nn::Draws& draws,
                                const std::vector<std::string>& taps) {
  const at::NoGradGuard no_grad;
  return impl_->model_.forward(batch, draws, taps);
}

void Engine::sum_over_pieces(at::Tensor&) {}
at::Tensor Engine::counted() const { return {}; }
std::string Engine::describe() const { return {}; }
int64_t Engine::early_starts() const { return impl_->reducer_.early_starts(); }

}  // namespace vitrail::parallel
