// `vitrail forward`: one numeric pass from a file to a file, for comparison with other programs.

#include <sstream>

#include "vitrail/app/verbs.h"
#include "vitrail/models/forward_files.h"
#include "vitrail/models/key_map.h"
#include "vitrail/train/assembly.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  models::ForwardFiles files;
  std::string taps;  // one word, so that overrides may follow it
};

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');)
    if (!word.empty()) words.push_back(word);
  return words;
}

std::vector<std::string> naming_choices() {
  std::vector<std::string> words = models::naming_words();
  words.insert(words.begin(), "auto");
  return words;
}

void forward(const Arguments& arguments, Session& session) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const at::Device device = train::choose_device(recipe.run, session.launch());
  train::set_threads(recipe.run, session.launch());
  models::ForwardFiles files = arguments.files;
  files.taps = split_at_commas(arguments.taps);
  models::forward_files(recipe, files, device, train::compute_dtype(recipe.train));
}

}  // namespace

void add_forward(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "forward", "one numeric pass from a file to a file, for comparison with other programs");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  models::ForwardFiles& files = arguments->files;
  verb->add_option("--weights", files.weights,
                   "safetensors file; default: fresh initialisation from run.seed");
  verb->add_option("--from", files.from,
                   "naming scheme of the weights; auto: by names that only one has")
      ->check(CLI::IsMember(naming_choices()));
  verb->add_option("--input", files.input,
                   "safetensors file with image [B, C, ...], label [B] (int64), mask_noise [B, L]")
      ->required();
  verb->add_option("--output", files.output,
                   "safetensors file to write: output, loss, mask, tap/NAME, grad/NAME")
      ->required();
  verb->add_option("--taps", arguments->taps,
                   "intermediate results to write, e.g. embed,blocks.0,norm");
  verb->add_flag("--backward", files.backward,
                 "also write the gradient of the loss by every parameter and the image");
  verb->add_flag("--train", files.train,
                 "training mode: dropouts and drop-path draw from run.seed");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) { forward(*arguments, session); };
  });
}

}  // namespace vitrail::app
