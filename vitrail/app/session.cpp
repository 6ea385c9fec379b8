#include "vitrail/app/verbs.h"

namespace vitrail::app {

comm::Communicator& Session::world() {
  if (!world_) world_ = comm::world_communicator(launch_);
  return *world_;
}

void RecipeArguments::add(CLI::App& verb) {
  verb.add_option("RECIPE", path_, "recipe file (YAML)")->required();
  verb.add_option("overrides", overrides_,
                  "key.path=value, e.g. train.optimizer.lr=3e-4 data.sources[0].root=/data");
}

config::ResolvedRecipe RecipeArguments::load() const {
  return config::load_recipe(path_, overrides_);
}

}  // namespace vitrail::app
