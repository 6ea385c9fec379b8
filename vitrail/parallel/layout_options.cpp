// Which units, parts and slices a rank holds, from the recipe and its place in the mesh alone.

#include <map>

#include "vitrail/parallel/engine.h"
#include "vitrail/parallel/pipeline.h"
#include "vitrail/parallel/strategy.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::parallel {

using comm::Axis;

Strategy strategy_of(const config::Parallel& options, const MeshPlace& place) {
  const std::string& word = options.strategy.value;
  Strategy strategy;
  if (word == "none" || word == "ddp") return strategy;
  Sharding& sharding = strategy.sharding;
  sharding.weights = place.size(Axis::shard) * place.size(Axis::sequence);
  sharding.weights_index =
      place.coordinate(Axis::shard) * place.size(Axis::sequence) + place.coordinate(Axis::sequence);
  if (options.shard_optimizer == "all") {
    sharding.kept = place.size(Axis::replicate);
    sharding.kept_index = place.coordinate(Axis::replicate);
  }
  // A group of one has nothing to gather and nothing to reduce.
  const bool is_divided = sharding.weights > 1;
  strategy.gradients_in_slots = is_divided && word != "zero1";
  strategy.weights_in_slots = is_divided && (word == "zero3" || word == "hybrid");
  return strategy;
}

LayoutOptions layout_options(models::Model& model, const config::Recipe& recipe,
                             const MeshPlace& place) {
  LayoutOptions options;
  options.sharding = strategy_of(recipe.parallel, place).sharding;
  options.placement =
      tensor_placement(recipe, place.size(Axis::tensor), place.coordinate(Axis::tensor));
  const int ranks = place.size(Axis::pipeline);
  if (ranks == 1) return options;
  const auto parts = static_cast<int>(recipe.parallel.pipeline_parts);
  std::map<std::string, int> stages;
  for (const auto& [unit, stage] : stage_of_units(model, ranks * parts))
    stages.emplace(unit, stage);
  options.is_held = [stages, ranks,
                     mine = place.coordinate(Axis::pipeline)](const models::UnitSpec& unit) {
    return stages.at(unit.name) % ranks == mine;
  };
  return options;
}

}  // namespace vitrail::parallel
