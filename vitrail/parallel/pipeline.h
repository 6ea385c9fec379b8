#pragma once
/// Pipeline parallelism: stages of consecutive blocks pass micro-batches on.
///
/// Paper     GPipe: Huang et al. 2019, arXiv:1811.06965; 1F1B: Narayanan et al. 2019 (PipeDream), arXiv:1806.03377;
///           interleaved: Narayanan et al. 2021, arXiv:2104.04473.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/groups.h"

namespace vitrail::parallel {

/// Which stage of `stages` holds each unit of a model, by unit name: blocks in even runs, ends with the block they lie
/// next to. Needs no ranks.
std::vector<std::pair<std::string, int>> stage_of_units(models::Model& model, int stages);

/// Called around the passes of micro-batches, so that gradients are reduced after the last. Any may be empty.
struct PassHooks {
  std::function<void()> before_forward;
  /// `last`: no other backward follows on this rank in the step, of any of its parts.
  std::function<void(bool last)> before_backward;
  std::function<void()> after_backward;
  at::Tensor loss_factor{};  // scalar; backward is of the loss times this; undefined = 1
};

class Pipeline {
 public:
  /// Every rank of the mesh calls it. throws ConfigError for a model that cannot be cut, or has too few blocks.
  Pipeline(models::Model& model, const config::Recipe& recipe, Groups& groups);
  ~Pipeline();

  bool is_held(const models::UnitSpec& unit) const;
  /// Forward and backward of all micro-batches. Returns the sum of their losses / their number, on every stage.
  at::Tensor run(const std::vector<data::Batch>& micro_batches,
                 const std::function<nn::Draws(const data::Batch&)>& draws_of,
                 const PassHooks& hooks);
  /// Forward without gradients; the output is on every stage, with the taps of all.
  /// throws ConfigError when the model has no such tap.
  models::Output evaluate(const data::Batch& batch, const nn::Draws& draws,
                          const std::vector<std::string>& taps = {});
  /// "pipeline of 2 ranks x 1 parts, 1f1b: embed to blocks.5", this rank's units; empty for one rank.
  std::string describe() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel
