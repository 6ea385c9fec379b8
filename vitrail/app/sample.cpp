// vitrail sample: draws images or volumes from a diffusion model.

#include "vitrail/train/sample.h"

#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"

namespace vitrail::app {

namespace {

struct Arguments {
  RecipeArguments recipe;
  train::SampleOptions options;
  std::string method = "ddim", variance = "posterior";
  bool no_clip = false;
  std::optional<uint64_t> seed;
};

void declare(CLI::App& verb, Arguments& arguments) {
  arguments.recipe.add(verb);
  train::DrawOptions& draw = arguments.options.draw;
  verb.add_option("--weights", arguments.options.weights,
                  "safetensors file, checkpoint folder or run folder; default: newest valid "
                  "checkpoint of the run");
  verb.add_option("--output", arguments.options.output,
                  "NAME.png: all samples on one sheet; NAME.safetensors: image [N, C, ...] and "
                  "label [N]; else a folder of PNG files (volumes: .npy)")
      ->required();
  verb.add_option("--count", draw.count, "samples to draw")->capture_default_str();
  verb.add_option("--method", arguments.method, "ddim (few steps) or ddpm")
      ->check(CLI::IsMember({"ddim", "ddpm"}))
      ->capture_default_str();
  verb.add_option("--steps", draw.steps,
                  "noise levels visited; default: 50 (ddim), all of model.num_timesteps (ddpm)")
      ->check(CLI::PositiveNumber);
  verb.add_option("--variance", arguments.variance,
                  "ddpm: noise of a step, of the posterior or beta")
      ->check(CLI::IsMember({"posterior", "beta"}))
      ->capture_default_str();
  verb.add_option("--guidance", draw.guidance,
                  "1 follows the class as learned, 0 ignores it, more exaggerates it")
      ->capture_default_str();
  verb.add_option("--class", draw.label, "class of all samples; default: every class in turn");
  verb.add_option("--seed", arguments.seed, "of the noise; default: run.seed");
  verb.add_option("--batch", draw.batch, "samples drawn at once")->capture_default_str();
  verb.add_flag("--no-clip", arguments.no_clip,
                "let predicted images leave the range of the data between steps");
}

void run(Session& session, Arguments& arguments) {
  const config::ResolvedRecipe resolved = arguments.recipe.load(session);
  train::DrawOptions& draw = arguments.options.draw;
  draw.method =
      arguments.method == "ddpm" ? models::SamplingMethod::ddpm : models::SamplingMethod::ddim;
  draw.variance = arguments.variance == "beta" ? models::SamplingVariance::beta
                                               : models::SamplingVariance::posterior;
  draw.seed = arguments.seed.value_or(static_cast<uint64_t>(resolved.recipe.run.seed));
  draw.clip = !arguments.no_clip;
  arguments.options.launch = session.launch();
  arguments.options.version = program_version();
  train::sample_recipe(resolved, session.world(), arguments.options);
  if (session.is_main_rank())
    fmt::print("{} samples -> {}\n", draw.count, arguments.options.output);
}

}  // namespace

void add_sample(Program& program) {
  auto* verb =
      program.cli.add_subcommand("sample", "draw images or volumes from a diffusion model");
  auto arguments = std::make_shared<Arguments>();
  declare(*verb, *arguments);
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) { run(session, *arguments); };
  });
}

}  // namespace vitrail::app
