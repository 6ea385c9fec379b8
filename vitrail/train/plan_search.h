#pragma once
/// The layouts of a recipe on N GPUs that fit, best first.

#include <string>
#include <vector>

#include "vitrail/train/plan.h"

namespace vitrail::train {

struct SearchResult {
  std::vector<Plan> best;  // fit, by predicted images/s; at most `limit`
  int64_t tried = 0, refused = 0, too_large = 0;
  std::optional<Plan> smallest;  // of those that do not fit, when none does
};

/// Tries every mesh, strategy, recompute and number of passes that the recipe's rules allow with its data.batch_size;
/// tensor ranks stay inside a host. All else (prefetch, precision, offload ...) stays as the recipe has it.
SearchResult search_layouts(PlanSubject& subject, const config::Recipe& recipe,
                            const Machine& machine, int64_t gpus, size_t limit = 10);
/// The recipe of a layout that was found: rules hold for it.
config::Recipe recipe_of(const config::Recipe& recipe, const Plan& plan);
/// The lines to put into a recipe for this layout.
std::string recipe_lines(const Plan& plan);

}  // namespace vitrail::train
