#pragma once
/// Tensor parallelism: ranks share the heads and hidden units of every block. With sharding around it this is
/// Hybrid-STOP: nobody ever holds more than a unit's share of a tensor rank.
///
/// Paper     Shoeybi et al. 2019, arXiv:1909.08053; split norms: Korthikanti et al. 2022, arXiv:2205.05198;
///           Hybrid-STOP: Wang et al. 2024, arXiv:2404.14712; split channels (D-CHAG): arXiv:2506.21411.
/// Bias      of a layer whose inputs are divided is added once, after the sum.
/// Draws     what is replicated is drawn alike, what is divided is drawn by its place in the whole (ops::Window).

#include <memory>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/groups.h"
#include "vitrail/parallel/placement.h"

namespace vitrail::parallel {

/// The one table of which parameter is divided how, for rank `part` of `parts`; needs no ranks.
PlacementTable tensor_placement(const config::Recipe& recipe, int parts, int part);

/// Puts collectives around the layers of a model whose parameters are about to be divided. A group of one changes
/// nothing. Must live as long as the model runs.
class TensorParallel {
 public:
  /// throws ConfigError for models and sizes that cannot be divided.
  TensorParallel(models::Model& model, const config::Recipe& recipe, Groups& groups);
  ~TensorParallel();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel
