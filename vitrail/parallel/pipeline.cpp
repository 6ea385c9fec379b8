#include "vitrail/parallel/pipeline.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/pipeline_cut.h"
#include "vitrail/parallel/pipeline_links.h"
#include "vitrail/parallel/pipeline_schedule.h"
#include "vitrail/parallel/pipeline_stage.h"

namespace vitrail::parallel {
namespace {

using comm::Axis;

ScheduleKind kind_of(const config::Parallel& parallel) {
  if (parallel.pipeline_schedule == "gpipe") return ScheduleKind::gpipe;
  return parallel.pipeline_schedule == "interleaved" ? ScheduleKind::interleaved
                                                     : ScheduleKind::one_each;
}

models::Chain& chain_of(models::Model& model) {
  models::Chain* chain = model.chain();
  VT_REQUIRE(ConfigError, chain != nullptr,
             "[pipeline] parallel.pipeline must be 1 for a model that cannot be cut into stages");
  return *chain;
}

/// What the shapes of all that a batch becomes depend on.
std::string shape_key(const data::Batch& batch, const nn::Draws& draws) {
  std::string key = draws.training ? "training" : "evaluation";
  for (const at::Tensor* tensor :
       {&batch.image, &batch.label, &batch.leaf_tokens, &batch.leaf_boxes, &batch.mask_noise,
        &batch.boxes})
    key += tensor->defined() ? fmt::format(" {}", fmt::join(tensor->sizes(), "x")) : " -";
  return fmt::format("{} {}", key, fmt::join(batch.variables, ","));
}

}  // namespace

std::vector<std::pair<std::string, int>> stage_of_units(models::Model& model, int stages) {
  std::vector<std::pair<std::string, int>> found;
  const std::vector<models::UnitSpec> units = model.units();
  if (stages == 1) {
    for (const models::UnitSpec& unit : units) found.emplace_back(unit.name, 0);
    return found;
  }
  models::Chain& chain = chain_of(model);
  const PipelineCut cut(chain, stages);
  const std::vector<nn::Stack*> trunks = chain.trunks();
  for (const models::UnitSpec& unit : units) {
    const auto trunk = static_cast<int>(std::ranges::find(trunks, unit.stack) - trunks.begin());
    found.emplace_back(unit.name, unit.stack ? cut.stage_of_block(trunk, unit.block)
                                             : cut.stage_of_end(chain.end_of(unit.name)));
  }
  return found;
}

class Pipeline::Impl {
 public:
  Impl(models::Model& model, const config::Recipe& recipe, Groups& groups)
      : model_(model),
        kind_(kind_of(recipe.parallel)),
        ranks_(groups.mesh().size(Axis::pipeline)),
        rank_(groups.mesh().coordinate(Axis::pipeline)),
        parts_(ranks_ > 1 ? static_cast<int>(recipe.parallel.pipeline_parts) : 1),
        units_(static_cast<size_t>(parts_)) {
    const int stages = ranks_ * parts_;
    for (const auto& [unit, stage] : stage_of_units(model, stages)) {
      stages_[unit] = stage;
      if (stage % ranks_ == rank_) units_[static_cast<size_t>(stage / ranks_)].push_back(unit);
    }
    if (ranks_ == 1) {
      parts_of_.emplace_back(model, std::vector<models::ChainPiece>{}, /*is_last=*/true);
      return;
    }
    const PipelineCut cut(chain_of(model), stages);
    for (int part = 0; part < parts_; ++part)
      parts_of_.emplace_back(model, cut.pieces(stage_of(part)), stage_of(part) == stages - 1);
    links_.emplace(groups, /*ring=*/parts_ > 1);
  }

  bool is_held(const std::string& unit) const { return stages_.at(unit) % ranks_ == rank_; }

  at::Tensor run(const std::vector<data::Batch>& micro_batches,
                 const std::function<nn::Draws(const data::Batch&)>& draws_of,
                 const PassHooks& hooks);
  models::Output evaluate(const data::Batch& batch, const nn::Draws& draws,
                          const std::vector<std::string>& taps);
  std::string describe() const;

 private:
  /// A micro-batch on its way through a part of this rank.
  struct Passage {
    StagePass pass;
    Transfer sent;
    at::Tensor share;  // of the loss
  };
  struct MicroBatch {
    data::Batch batch;
    nn::Draws draws;
    std::string key;
  };
  /// Everything of one step.
  struct Step {
    const std::function<nn::Draws(const data::Batch&)>& draws_of;
    const PassHooks& hooks;
    const std::vector<data::Batch>& given;
    std::vector<Action> actions;
    std::map<int, MicroBatch> micro_batches;
    std::map<std::pair<int, int>, Passage> passages;  // by part and micro-batch
    at::Tensor loss;
  };

  int stage_of(int part) const { return rank_ + part * ranks_; }
  static std::string key_of(int part, const std::string& shapes) {
    return fmt::format("{} {}", part, shapes);
  }
  const MicroBatch& micro_batch(Step& step, int index);
  /// Begins to receive what the action reads; a transfer of nothing when it reads nothing.
  Transfer ask(Step& step, const Action& action);
  /// The same ahead of time; nothing while it is not known what will come.
  std::optional<Transfer> ask_early(Step& step, const Action& action);
  void forward(Step& step, const Action& action, std::vector<at::Tensor> inputs);
  void backward(Step& step, const Action& action, const std::vector<at::Tensor>& gradients);
  at::Tensor shared_loss(at::Tensor loss);
  /// The first stage's that has it, on every stage.
  at::Tensor shared_tap(const std::map<std::string, at::Tensor>& found, const std::string& name,
                        const std::string& key);

  models::Model& model_;
  ScheduleKind kind_;
  int ranks_, rank_, parts_;
  std::map<std::string, int> stages_;            // by unit
  std::vector<std::vector<std::string>> units_;  // of each part
  std::vector<Stage> parts_of_;
  std::optional<PipelineLinks> links_;  // none for one rank
};

const Pipeline::Impl::MicroBatch& Pipeline::Impl::micro_batch(Step& step, int index) {
  const auto known = step.micro_batches.find(index);
  if (known != step.micro_batches.end()) return known->second;
  const data::Batch& given = step.given[static_cast<size_t>(index)];
  MicroBatch micro{given, step.draws_of(given), {}};
  // Ends would make leaves again and again.
  if (ranks_ > 1) micro.batch = model_.prepared(given, micro.draws);
  micro.key = shape_key(micro.batch, micro.draws);
  return step.micro_batches.emplace(index, std::move(micro)).first->second;
}

std::optional<Transfer> Pipeline::Impl::ask_early(Step& step, const Action& action) {
  const bool is_known =
      action.backward
          ? step.passages.contains({action.part, action.micro_batch})
          : stage_of(action.part) == 0 ||
                links_->knows(key_of(action.part, micro_batch(step, action.micro_batch).key));
  if (!is_known) return {};
  return ask(step, action);
}

Transfer Pipeline::Impl::ask(Step& step, const Action& action) {
  if (action.backward) {
    if (parts_of_[action.part].is_last()) return {};
    return links_->receive_back(
        shapes_of(step.passages.at({action.part, action.micro_batch}).pass.outputs));
  }
  if (stage_of(action.part) == 0) return {};
  return links_->receive(key_of(action.part, micro_batch(step, action.micro_batch).key));
}

void Pipeline::Impl::forward(Step& step, const Action& action, std::vector<at::Tensor> inputs) {
  const MicroBatch& micro = micro_batch(step, action.micro_batch);
  Stage& stage = parts_of_[action.part];
  if (step.hooks.before_forward) step.hooks.before_forward();
  Passage passage;
  passage.pass = stage.forward(std::move(inputs), micro.batch, micro.draws);
  if (stage.is_last()) {
    VT_REQUIRE(DataError, passage.pass.out.loss.defined(),
               "[train] a training batch must have labels but has none");
    passage.share = passage.pass.out.loss / static_cast<double>(step.given.size());
    const at::Tensor share = passage.share.detach();
    step.loss = step.loss.defined() ? step.loss + share : share;
    passage.pass.out = {};
  } else {
    // The receiver is the part that holds the next stage.
    const int next = (stage_of(action.part) + 1) / ranks_;
    passage.sent = links_->send_on(passage.pass.outputs, key_of(next, micro.key));
  }
  step.passages.insert_or_assign({action.part, action.micro_batch}, std::move(passage));
  if (action.part + 1 == parts_) step.micro_batches.erase(action.micro_batch);
}

void Pipeline::Impl::backward(Step& step, const Action& action,
                              const std::vector<at::Tensor>& gradients) {
  const auto found = step.passages.find({action.part, action.micro_batch});
  Passage passage = std::move(found->second);
  step.passages.erase(found);
  passage.sent.done();
  const PassHooks& hooks = step.hooks;
  if (hooks.before_backward) hooks.before_backward(action == step.actions.back());
  const bool is_scaled = passage.share.defined() && hooks.loss_factor.defined();
  const std::vector<at::Tensor> of_inputs = parts_of_[action.part].backward(
      passage.pass, gradients, is_scaled ? passage.share * hooks.loss_factor : passage.share);
  if (stage_of(action.part) > 0) links_->send_back(of_inputs);
  if (hooks.after_backward) hooks.after_backward();
}

at::Tensor Pipeline::Impl::shared_loss(at::Tensor loss) {
  if (!links_) return loss;
  std::vector<at::Tensor> tensors{std::move(loss)};
  links_->broadcast(tensors, "loss", ranks_ - 1);
  return tensors.front();
}

at::Tensor Pipeline::Impl::run(const std::vector<data::Batch>& micro_batches,
                               const std::function<nn::Draws(const data::Batch&)>& draws_of,
                               const PassHooks& hooks) {
  const auto count = static_cast<int>(micro_batches.size());
  Step step{draws_of, hooks, micro_batches, schedule(kind_, ranks_, rank_, parts_, count), {},
            {},       {}};
  std::optional<Transfer> coming;
  for (size_t k = 0; k < step.actions.size(); ++k) {
    const Action& action = step.actions[k];
    Transfer arriving = coming ? std::move(*coming) : ask(step, action);
    coming.reset();
    // The next message can come while this action computes.
    if (k + 1 < step.actions.size()) coming = ask_early(step, step.actions[k + 1]);
    if (action.backward)
      backward(step, action, arriving.done());
    else
      forward(step, action, arriving.done());
  }
  if (links_) links_->finish();
  return shared_loss(step.loss);
}

at::Tensor Pipeline::Impl::shared_tap(const std::map<std::string, at::Tensor>& found,
                                      const std::string& name, const std::string& key) {
  for (int owner = 0; owner < ranks_; ++owner) {
    std::vector<at::Tensor> value(1);
    if (owner == rank_ && found.contains(name)) value[0] = found.at(name);
    links_->broadcast(value, fmt::format("{} of {} {}", name, owner, key), owner);
    if (value[0].defined()) return value[0];
  }
  return {};
}

models::Output Pipeline::Impl::evaluate(const data::Batch& given, const nn::Draws& draws,
                                        const std::vector<std::string>& taps) {
  const at::NoGradGuard no_grad;
  if (!links_) return model_.forward(given, draws, taps);
  chain_of(model_).check_taps(taps);
  const data::Batch batch = model_.prepared(given, draws);
  const std::string key = shape_key(batch, draws);
  models::Output out;
  std::map<std::string, at::Tensor> found;
  std::vector<Transfer> sent;
  for (int part = 0; part < parts_; ++part) {
    std::vector<at::Tensor> inputs;
    if (stage_of(part) > 0) inputs = links_->receive(key_of(part, key)).done();
    StagePass pass = parts_of_[part].forward(std::move(inputs), batch, draws, taps);
    found.merge(pass.out.taps);
    if (parts_of_[part].is_last())
      out = std::move(pass.out);
    else
      sent.push_back(links_->send_on(pass.outputs, key_of((stage_of(part) + 1) / ranks_, key)));
  }
  for (Transfer& transfer : sent) transfer.done();
  links_->finish();
  std::vector<at::Tensor> tensors{out.output, out.loss, out.mask, out.boxes};
  links_->broadcast(tensors, key, ranks_ - 1);
  models::Output shared{tensors[0], tensors[1], tensors[2], tensors[3], {}};
  for (const std::string& tap : taps)
    if (const at::Tensor value = shared_tap(found, tap, key); value.defined())
      shared.taps[tap] = value;
  return shared;
}

std::string Pipeline::Impl::describe() const {
  if (ranks_ == 1) return {};
  std::vector<std::string> parts;
  for (const std::vector<std::string>& units : units_)
    parts.push_back(fmt::format("{} to {}", units.front(), units.back()));
  const char* names[] = {"gpipe", "1f1b", "interleaved"};
  return fmt::format("pipeline of {} ranks x {} parts, {}: {}", ranks_, parts_,
                     names[static_cast<int>(kind_)], fmt::join(parts, "; "));
}

Pipeline::Pipeline(models::Model& model, const config::Recipe& recipe, Groups& groups)
    : impl_(std::make_unique<Impl>(model, recipe, groups)) {}
Pipeline::~Pipeline() = default;

bool Pipeline::is_held(const models::UnitSpec& unit) const { return impl_->is_held(unit.name); }

at::Tensor Pipeline::run(const std::vector<data::Batch>& micro_batches,
                         const std::function<nn::Draws(const data::Batch&)>& draws_of,
                         const PassHooks& hooks) {
  return impl_->run(micro_batches, draws_of, hooks);
}

models::Output Pipeline::evaluate(const data::Batch& batch, const nn::Draws& draws,
                                  const std::vector<std::string>& taps) {
  return impl_->evaluate(batch, draws, taps);
}

std::string Pipeline::describe() const { return impl_->describe(); }

}  // namespace vitrail::parallel
