#include "vitrail/train/plan_search.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

using comm::Axis;

std::vector<int64_t> divisors(int64_t number, int64_t most) {
  std::vector<int64_t> found;
  for (int64_t d = 1; d <= std::min(number, most); ++d)
    if (number % d == 0) found.push_back(d);
  return found;
}

/// Of many divisors, those nearest to powers of two: finer steps change little.
std::vector<int64_t> thinned(const std::vector<int64_t>& all) {
  if (all.size() <= 16) return all;
  std::vector<int64_t> kept;
  for (const int64_t d : all)
    if (kept.empty() || d >= 2 * kept.back() || d == all.back()) kept.push_back(d);
  return kept;
}

/// Layouts less than about 0.2 % apart count as equally fast; then the smaller one is better.
bool is_better(const Plan& a, const Plan& b) {
  const auto class_of = [](const Plan& plan) {
    return std::floor(std::log(plan.images_per_second) / 0.002);
  };
  if (class_of(a) != class_of(b)) return class_of(a) > class_of(b);
  return a.peak_bytes < b.peak_bytes;
}

struct Trial {
  MeshSizes mesh{1, 1, 1, 1, 1};
  const char* strategy = "ddp";
  const char* recompute = "none";
  int64_t passes = 1;
};

config::Recipe with_trial(const config::Recipe& recipe, const Trial& trial) {
  config::Recipe changed = with_mesh(recipe, trial.mesh);
  changed.parallel.strategy.value = trial.strategy;
  changed.train.recompute.value = trial.recompute;
  changed.train.micro_batches = trial.passes;
  if (std::string(trial.strategy) == "ddp" || std::string(trial.strategy) == "none")
    changed.parallel.shard_optimizer.value = "group";
  if (trial.mesh[static_cast<size_t>(Axis::tensor)] == 1)
    changed.parallel.split_channels = false, changed.parallel.split_norms = false,
    changed.parallel.tensor_chunks = 1;
  if (trial.mesh[static_cast<size_t>(Axis::sequence)] == 1) changed.parallel.ulysses.reset();
  if (trial.mesh[static_cast<size_t>(Axis::pipeline)] == 1) {
    changed.parallel.pipeline_schedule.value = "1f1b";
    changed.parallel.pipeline_parts = 1;
  }
  return changed;
}

class Search {
 public:
  Search(PlanSubject& subject, const config::Recipe& recipe, const Machine& machine, int64_t gpus,
         size_t limit)
      : subject_(subject), recipe_(recipe), machine_(machine), gpus_(gpus), limit_(limit) {}

  SearchResult run() {
    const int64_t batch = recipe_.data.batch_size;
    for (const int64_t tensor : divisors(gpus_, machine_.gpus_per_host)) {
      if (recipe_.model.num_heads % tensor != 0 || machine_.gpus_per_host % tensor != 0) continue;
      for (const int64_t sequence : thinned(divisors(gpus_ / tensor, most_sequence())))
        for (const int64_t pipeline : thinned(divisors(gpus_ / tensor / sequence, most_stages()))) {
          const int64_t data = gpus_ / tensor / sequence / pipeline;
          if (batch % data != 0) continue;
          for (const int64_t shard : thinned(divisors(data, data)))
            try_mesh({static_cast<int>(data / shard), static_cast<int>(shard),
                      static_cast<int>(pipeline), static_cast<int>(sequence),
                      static_cast<int>(tensor)});
        }
    }
    std::ranges::stable_sort(result_.best, is_better);
    if (result_.best.size() > limit_) result_.best.resize(limit_);
    return std::move(result_);
  }

 private:
  int64_t most_sequence() const { return std::min<int64_t>(recipe_.model.num_heads, 64); }
  int64_t most_stages() const {
    return subject_.trunks().size() == 1 ? subject_.trunks()[0].depth : 64;
  }

  void try_mesh(const MeshSizes& mesh) {
    const int64_t replicate = mesh[0], shard = mesh[1], data = replicate * shard;
    const int64_t slices = shard * mesh[3];
    std::vector<const char*> strategies;
    if (slices == 1) strategies = {gpus_ == 1 ? "none" : "ddp"};
    if (slices > 1) strategies = {"zero1", "zero2", replicate > 1 ? "hybrid" : "zero3"};
    // Without sharding a sequence group still computes with equal weights.
    if (shard == 1 && mesh[3] > 1) strategies.insert(strategies.begin(), "ddp");
    const int64_t local = recipe_.data.batch_size / data;
    for (const char* strategy : strategies)
      for (const char* recompute : {"none", "selective", "block"})
        for (const int64_t passes : thinned(divisors(local, local))) {
          if (passes < mesh[2] && local >= mesh[2] && mesh[2] > 1)
            continue;  // a pipeline that stands still
          try_one({mesh, strategy, recompute, passes});
        }
  }

  void try_one(const Trial& trial) {
    ++result_.tried;
    const config::Recipe recipe = with_trial(recipe_, trial);
    config::RuleBook rules;
    config::check_parallel(recipe, rules);
    if (!rules.take().empty()) {
      ++result_.refused;
      return;
    }
    Plan plan;
    try {
      plan = make_plan(subject_, recipe, machine_, trial.mesh);
    } catch (const core::ConfigError&) {  // the model cannot be divided so
      ++result_.refused;
      return;
    }
    if (!plan.fits()) {
      ++result_.too_large;
      if (!result_.smallest || plan.peak_bytes < result_.smallest->peak_bytes)
        result_.smallest = plan;
      return;
    }
    result_.best.push_back(std::move(plan));
    if (result_.best.size() < 4 * limit_ + 64) return;
    const auto middle = result_.best.begin() + static_cast<std::ptrdiff_t>(limit_);
    std::ranges::nth_element(result_.best, middle, is_better);
    result_.best.resize(limit_);
  }

  PlanSubject& subject_;
  const config::Recipe& recipe_;
  const Machine& machine_;
  int64_t gpus_;
  size_t limit_;
  SearchResult result_;
};

}  // namespace

SearchResult search_layouts(PlanSubject& subject, const config::Recipe& recipe,
                            const Machine& machine, int64_t gpus, size_t limit) {
  VT_REQUIRE(ConfigError, gpus >= 1 && gpus <= int64_t{1} << 20,
             "[plan] the number of GPUs must be from 1 to {} but got {}", int64_t{1} << 20, gpus);
  return Search(subject, recipe, machine, gpus, limit).run();
}

config::Recipe recipe_of(const config::Recipe& recipe, const Plan& plan) {
  return with_trial(recipe,
                    {plan.mesh, plan.strategy.c_str(), plan.recompute.c_str(), plan.micro_batches});
}

std::string recipe_lines(const Plan& plan) {
  return fmt::format(
      "train: {{micro_batches: {}, recompute: {}}}\nparallel: {{strategy: {}, replicate: {}, "
      "shard: {}, pipeline: {}, "
      "sequence: {}, tensor: {}}}\n",
      plan.micro_batches, plan.recompute, plan.strategy, plan.mesh[0], plan.mesh[1], plan.mesh[2],
      plan.mesh[3], plan.mesh[4]);
}

}  // namespace vitrail::train
