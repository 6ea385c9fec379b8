#include "vitrail/parallel/engine.h"

#include <map>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/gather.h"
#include "vitrail/parallel/offload_activations.h"
#include "vitrail/parallel/pipeline.h"
#include "vitrail/parallel/reduce.h"
#include "vitrail/parallel/sequence.h"
#include "vitrail/parallel/strategy.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::parallel {

using comm::Axis;

namespace {

MeshPlace place_in(const comm::Mesh& mesh) {
  MeshPlace place;
  for (int axis = 0; axis < comm::kAxisCount; ++axis) {
    place.sizes[static_cast<size_t>(axis)] = mesh.size(static_cast<Axis>(axis));
    place.coordinates[static_cast<size_t>(axis)] = mesh.coordinate(static_cast<Axis>(axis));
  }
  return place;
}

UnitMemory memory_of(const config::Parallel& options, const MeshPlace& place,
                     const InitialValues& initial) {
  const Strategy strategy = strategy_of(options, place);
  return {.weights_in_slots = strategy.weights_in_slots,
          .gradients_in_slots = strategy.gradients_in_slots,
          .keep_below = options.persist_below,
          .kept_on_host = !(options.offload == "none"),
          .weights_on_host = options.offload == "parameters" && strategy.weights_in_slots,
          .initial = initial};
}

/// Equal pieces of a batch, one after another.
std::vector<data::Batch> cut(const data::Batch& batch, int64_t pieces) {
  const int64_t size = batch.size() / pieces;
  VT_REQUIRE(ConfigError, size * pieces == batch.size(),
             "[train] train.micro_batches must divide the samples of a rank but got {} and {}",
             pieces, batch.size());
  std::vector<data::Batch> found(static_cast<size_t>(pieces), batch);
  if (pieces == 1) return found;
  for (int64_t i = 0; i < pieces; ++i)
    for (at::Tensor* tensor : found[static_cast<size_t>(i)].rows())
      *tensor = tensor->narrow(0, i * size, size);
  return found;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(models::Model& model, const config::Recipe& recipe, comm::Mesh& mesh, at::Device device,
       at::ScalarType compute_dtype, const InitialValues& initial)
      : model_(model),
        options_(recipe.parallel),
        activations_(model, recipe.train, device),
        groups_(mesh, device),
        tensor_(model, recipe, groups_),
        sequence_(model, recipe, groups_),
        pipeline_(model, recipe, groups_),
        units_(model, device, compute_dtype, layout_options(model, recipe, place_in(mesh)),
               memory_of(recipe.parallel, place_in(mesh), initial)),
        gatherer_(units_, groups_, recipe.parallel),
        sharder_(units_, groups_, recipe.parallel) {
    for (nn::Stack* stack : model.stacks()) {
      watchers_.push_back(std::make_unique<Watcher>(*this, *stack));
      stack->add_observer(watchers_.back().get());
    }
    make_counted();
  }
  ~Impl() {
    for (const auto& watcher : watchers_) watcher->stack.remove_observer(watcher.get());
  }

  at::Tensor forward_backward(const data::Batch& batch, int64_t pieces,
                              const std::function<nn::Draws(const data::Batch&)>& draws_of) {
    const std::vector<data::Batch> parts = cut(batch, pieces);
    const bool is_piped = groups_.mesh().size(Axis::pipeline) > 1;
    sharder_.begin_step(pieces, !is_piped);
    at::Tensor loss;
    if (is_piped) {
      loss = pipeline_.run(
          parts, draws_of,
          {[this] { gatherer_.begin_forward(); }, [this](bool) { sharder_.begin_backward(); },
           [this] { sharder_.end_backward(); }, loss_factor_});
    } else {
      for (const data::Batch& part : parts) {
        const at::Tensor share = run_part(part, draws_of(part), pieces);
        loss = loss.defined() ? loss + share : share;
      }
    }
    sharder_.end_step();
    gatherer_.settle();
    return loss;
  }

  models::Output evaluate(const data::Batch& batch, const nn::Draws& draws,
                          const std::vector<std::string>& taps) {
    const at::NoGradGuard no_grad;
    gatherer_.begin_forward();
    const models::Output output = groups_.mesh().size(Axis::pipeline) > 1
                                      ? pipeline_.evaluate(batch, draws, taps)
                                      : model_.forward(batch, draws, taps);
    gatherer_.settle();
    return output;
  }

  void broadcast_weights();
  void sum_over_pieces(at::Tensor& own);
  std::string describe() const;

  /// Tells gathers and reductions where the passes are in one stack.
  struct Watcher : nn::StackObserver {
    Watcher(Impl& engine_, nn::Stack& stack_) : engine(engine_), stack(stack_) {
      const auto units = engine.units_.units();
      for (size_t u = 0; u < units.size(); ++u)
        if (units[u].stack == &stack) unit_of_block[units[u].block] = u;
    }
    void before_forward(int i) override { engine.gatherer_.before_forward(unit(i)); }
    void after_forward(int i) override { engine.gatherer_.after_forward(unit(i)); }
    void before_backward(int i) override {
      engine.gatherer_.before_backward(unit(i));
      engine.sharder_.before_backward(unit(i));
    }
    /// What the next block needs is asked for before the reduction takes the links.
    void after_backward(int i) override {
      engine.gatherer_.after_backward(unit(i));
      engine.sharder_.after_backward(unit(i));
    }
    size_t unit(int block) const {
      const auto found = unit_of_block.find(block);
      VT_CHECK(found != unit_of_block.end(), "[engine] this rank does not hold block {}", block);
      return found->second;
    }

    Impl& engine;
    nn::Stack& stack;
    std::map<int, size_t> unit_of_block;
  };

  models::Model& model_;
  config::Parallel options_;
  ActivationOffload activations_;
  Groups groups_;
  TensorParallel tensor_;
  SequenceParallel sequence_;
  Pipeline pipeline_;
  UnitSet units_;
  WeightGatherer gatherer_;
  GradientSharder sharder_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  at::Tensor counted_;
  at::Tensor loss_factor_;  // undefined = 1

 private:
  at::Tensor run_part(const data::Batch& part, const nn::Draws& draws, int64_t pieces) {
    gatherer_.begin_forward();
    const models::Output output = model_.forward(part, draws);
    VT_REQUIRE(DataError, output.loss.defined(),
               "[train] a training batch must have labels but has none");
    const at::Tensor share = output.loss / static_cast<double>(pieces);
    sharder_.begin_backward();
    (loss_factor_.defined() ? share * loss_factor_ : share).backward();
    sharder_.end_backward();
    return share.detach();
  }

  /// Parameters that all tensor ranks hold are counted by the first of them.
  void make_counted() {
    if (groups_.mesh().size(Axis::tensor) == 1) return;
    const bool is_first = groups_.mesh().coordinate(Axis::tensor) == 0;
    counted_ =
        at::zeros({units_.kept_count() / kAlignment}, units_.gradient().options().dtype(at::kByte));
    for (const KeptRun& run : units_.layout().kept_runs())
      if (is_first || run.slot->placement.split != Split::none)
        UnitSet::flags_of(counted_, run).fill_(1);
  }
};

/// Kept pieces go to the ranks that keep the same; then what all tensor ranks hold, unless a unit lies elsewhere on each
/// of them (one rank owns a parameter): values made of the seed or read from one file agree anyway.
void Engine::Impl::broadcast_weights() {
  const at::NoGradGuard no_grad;
  const Sharding& sharding = units_.layout().sharding();
  const comm::Stream stream = current_stream(groups_.device());
  const at::Tensor master = units_.master();
  const auto along = [&](std::initializer_list<Axis> axes) -> comm::Communicator& {
    return master.is_cpu() ? groups_.mesh().along(axes) : groups_.along(axes);
  };
  if (!units_.is_divided())
    along({Axis::replicate, Axis::shard, Axis::sequence})
        .broadcast(buffer_of(master), 0, stream)
        .wait();
  else if (sharding.kept == 1)
    along({Axis::replicate}).broadcast(buffer_of(master), 0, stream).wait();
  if (groups_.mesh().size(Axis::tensor) > 1) {
    comm::Communicator& tensor = along({Axis::tensor});
    std::map<const ParameterSlot*, bool> is_movable;
    for (const Unit& unit : units_.units()) {
      bool has_owner = false;
      for (const ParameterSlot& slot : unit.slots)
        has_owner |= slot.placement.split == Split::owner;
      for (const ParameterSlot& slot : unit.slots)
        is_movable[&slot] = !has_owner && slot.placement.split == Split::none;
    }
    for (const KeptRun& run : units_.layout().kept_runs())
      if (is_movable.at(run.slot))
        tensor.broadcast(buffer_of(master.narrow(0, run.kept_offset, run.count)), 0, stream).wait();
  }
  units_.publish_master();
  gatherer_.weights_changed();
}

/// Every rank adds the same numbers in the same order, so that all get the same bits.
void Engine::Impl::sum_over_pieces(at::Tensor& own) {
  const at::NoGradGuard no_grad;
  const Sharding& sharding = units_.layout().sharding();
  comm::Communicator* group = nullptr;
  if (sharding.kept > 1)
    group = &groups_.along(
        {Axis::replicate, Axis::shard, Axis::pipeline, Axis::sequence, Axis::tensor});
  else if (units_.is_divided())
    group = &groups_.along({Axis::shard, Axis::pipeline, Axis::sequence, Axis::tensor});
  else
    group = &groups_.along({Axis::pipeline, Axis::tensor});
  if (group->size() == 1) return;
  const at::Tensor all = at::empty({group->size()}, own.options());
  group->all_gather(buffer_of(own), buffer_of(all), current_stream(groups_.device())).wait();
  own.copy_(all.sum());
}

std::string Engine::Impl::describe() const {
  int64_t largest = 0, in_slots = 0;
  const auto units = units_.units();
  for (size_t u = 0; u < units.size(); ++u) {
    largest = std::max(largest, units[u].count);
    in_slots += units_.weights_in_slot(u);
  }
  const Sharding& sharding = units_.layout().sharding();
  std::string text =
      fmt::format("{}: {} units of at most {:.1f} M elements", options_.strategy.value,
                  units.size(), static_cast<double>(largest) / 1e6);
  if (sharding.weights > 1) text += fmt::format(", cut into {} slices", sharding.weights);
  if (sharding.kept > 1) text += fmt::format(", optimizer state into {} more", sharding.kept);
  if (in_slots > 0)
    text += fmt::format("; weights of {} blocks take turns in {} slots ({:.0f} MiB)", in_slots,
                        gatherer_.slots(), static_cast<double>(gatherer_.slot_bytes()) / (1 << 20));
  if (sharder_.bucket_count() > 0)
    text += fmt::format("; gradients in {} buckets", sharder_.bucket_count());
  return text;
}

Engine::Engine(models::Model& model, const config::Recipe& recipe, comm::Mesh& mesh,
               at::Device device, at::ScalarType compute_dtype, const InitialValues& initial)
    : impl_(std::make_unique<Impl>(model, recipe, mesh, device, compute_dtype, initial)) {}
Engine::~Engine() = default;

UnitSet& Engine::units() { return impl_->units_; }
Groups& Engine::groups() { return impl_->groups_; }
at::Device Engine::device() const { return impl_->groups_.device(); }
const config::Parallel& Engine::options() const { return impl_->options_; }
void Engine::on_gradient(std::function<void(size_t unit, void* stream)> tell) {
  impl_->sharder_.on_complete(std::move(tell));
}
void Engine::broadcast_weights() { impl_->broadcast_weights(); }

void Engine::publish(const at::Tensor& kept_arena) {
  impl_->units_.publish(kept_arena);
  impl_->gatherer_.weights_changed();
}
void Engine::weights_changed() { impl_->gatherer_.weights_changed(); }

void Engine::scale_loss_by(const at::Tensor& factor) { impl_->loss_factor_ = factor; }

at::Tensor Engine::forward_backward(const data::Batch& batch, int64_t micro_batches,
                                    const std::function<nn::Draws(const data::Batch&)>& draws_of) {
  return impl_->forward_backward(batch, micro_batches, draws_of);
}

models::Output Engine::evaluate(const data::Batch& batch, const nn::Draws& draws,
                                const std::vector<std::string>& taps) {
  return impl_->evaluate(batch, draws, taps);
}

void Engine::sum_over_pieces(at::Tensor& own) { impl_->sum_over_pieces(own); }
at::Tensor Engine::counted() const { return impl_->counted_; }
std::string Engine::describe() const { return impl_->describe(); }
int64_t Engine::early_starts() const { return impl_->sharder_.early_starts(); }
Engine::Counts Engine::counts() const {
  return {impl_->gatherer_.gathers(), impl_->sharder_.reductions()};
}

Engine::Buffers Engine::buffers() const {
  return {impl_->gatherer_.slot_bytes(), impl_->sharder_.slot_bytes(),
          impl_->sharder_.staging_bytes()};
}

}  // namespace vitrail::parallel
