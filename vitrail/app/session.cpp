#include <algorithm>
#include <optional>

#include "vitrail/app/verbs.h"
#include "vitrail/core/error.h"

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

config::ResolvedRecipe RecipeArguments::load(Session& session) const {
  if (session.launch().size == 1) return load();
  std::optional<config::ResolvedRecipe> recipe;
  std::string problem;
  try {
    recipe = load();
  } catch (const core::ConfigError& error) {
    problem = error.what();
  }
  const std::vector<std::string> problems = comm::gather_strings(session.world(), problem);
  const auto failed = std::find_if(problems.begin(), problems.end(),
                                   [](const std::string& text) { return !text.empty(); });
  if (failed == problems.end()) return std::move(*recipe);
  session.note_shared_error();
  const bool all = std::all_of(problems.begin(), problems.end(),
                               [&](const std::string& text) { return text == *failed; });
  throw core::ConfigError(all ? *failed
                              : fmt::format("[recipe] rank {} cannot read the recipe: {}",
                                            failed - problems.begin(), *failed));
}

}  // namespace vitrail::app
