// vitrail predict: applies saved weights to image files.

#include "vitrail/train/predict.h"

#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"

namespace vitrail::app {

namespace {

struct Arguments {
  RecipeArguments recipe;
  train::PredictOptions options;
};

}  // namespace

void add_predict(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "predict",
      "apply saved weights to files: classes (CSV), boxes (JSON), masks (PNG, NIfTI) or "
      "reconstructions (PNG)");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--weights", arguments->options.weights,
                   "safetensors file, checkpoint folder or run folder; default: newest valid "
                   "checkpoint of the run");
  verb->add_option(
          "--input", arguments->options.input,
          "an image, or a folder of images; unetr, sap: what the reader of the recipe's source "
          "reads, volumes included")
      ->required();
  verb->add_option("--output", arguments->options.output,
                   "CSV file (vit), JSON file (vit_detection) or folder (mae, unetr, sap)")
      ->required();
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      const config::ResolvedRecipe resolved = arguments->recipe.load(session);
      arguments->options.launch = session.launch();
      arguments->options.version = program_version();
      const int64_t images = train::predict_files(resolved, session.world(), arguments->options);
      if (session.is_main_rank())
        fmt::print("{} images -> {}\n", images, arguments->options.output);
    };
  });
}

}  // namespace vitrail::app
