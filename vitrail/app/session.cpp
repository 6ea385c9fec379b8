#include <algorithm>
#include <optional>

#include "vitrail/app/verbs.h"
#include "vitrail/config/convert.h"
#include "vitrail/config/layered.h"
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

void RecipeArguments::add_deepspeed(CLI::App& verb) {
  verb.add_option("--deepspeed", deepspeed_,
                  "DeepSpeed configuration (JSON) to lay over the recipe; overrides win over it");
}

config::ResolvedRecipe RecipeArguments::load(int64_t ranks) const {
  return deepspeed_.empty() ? config::load_recipe(path_, overrides_) : load_with_deepspeed(ranks);
}

namespace {

int64_t ranks_of_one_sample(const config::Parallel& parallel) {
  return parallel.pipeline * parallel.sequence * parallel.tensor;
}

}  // namespace

config::ResolvedRecipe RecipeArguments::load_with_deepspeed(int64_t ranks) const {
  const std::string json = config::read_text_file(deepspeed_, "DeepSpeed");
  config::ResolvedRecipe resolved = config::load_recipe(path_, overrides_);
  config::ConvertOptions options{.base = resolved.recipe};
  // The configuration itself may ask for tensor ranks, which share their samples.
  for (int64_t inner = 0; inner != ranks_of_one_sample(resolved.recipe.parallel);) {
    inner = ranks_of_one_sample(resolved.recipe.parallel);
    options.data_ranks = ranks / std::max<int64_t>(1, inner);
    const config::Conversion conversion = config::convert_deepspeed(json, deepspeed_, options);
    conversion.throw_if_any();
    converted_ = conversion.table();
    std::vector<config::Setting> settings = conversion.settings;
    for (const std::string& text : overrides_) settings.push_back({text, ""});
    resolved = config::load_layered(path_, settings);
  }
  return resolved;
}

config::ResolvedRecipe RecipeArguments::load(Session& session) const {
  if (session.launch().size == 1) return load(1);
  std::optional<config::ResolvedRecipe> recipe;
  std::string problem;
  try {
    recipe = load(session.launch().size);
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
