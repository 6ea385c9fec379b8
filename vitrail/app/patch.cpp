// `vitrail patch`: the adaptive or mixed-resolution patches of an image or volume, drawn and as tensors.

#include <optional>

#include <ATen/ops/empty.h>

#include "vitrail/app/patch_leaves.h"
#include "vitrail/app/verbs.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/leaves.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"
#include "vitrail/io/image.h"
#include "vitrail/io/nifti.h"
#include "vitrail/io/safetensors.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  std::string input, output, tokens;
  int64_t slices = 0, epoch = 0;
  std::optional<int64_t> sample;
};

/// The recipe's first source, of one file in place of its own; its format where that is plain from the
/// name.
config::Source source_of(const config::Recipe& recipe, const std::string& input) {
  config::Source source =
      recipe.data.sources.empty() ? config::Source{} : recipe.data.sources.front();
  source.root = input;
  source.labels.clear();
  source.label_maps.clear();
  source.split = config::Source{}.split;
  source.split_list.clear();
  source.split_hash.reset();
  if (source.reader == "random" || source.reader == "image_folder" || source.reader == "digits" ||
      io::has_image_extension(input))
    source.reader.value = "images";
  if (io::has_nifti_extension(input)) source.reader.value = "nifti";
  return source;
}

/// The model without labels: masks of the file are not looked for.
config::Model without_labels(config::Model model) {
  model.kind.value = "mae";
  return model;
}

PatchInput read_input(const config::Recipe& recipe, const std::string& path) {
  const config::Source source = source_of(recipe, path);
  const config::Model model = without_labels(recipe.model);
  const auto reader = data::open_reader(source, model);
  VT_REQUIRE(DataError, reader->size() == 1,
             "[patch] --input must be one image or volume but {} holds {}", path, reader->size());
  const data::Transform normal(source, model, /*training=*/false, /*raw=*/false);
  const data::Transform raw(source, model, /*training=*/false, /*raw=*/true);
  std::vector<int64_t> shape{1, normal.channels()};
  shape.insert(shape.end(), model.image_size.begin(), model.image_size.end());
  PatchInput input{.image = at::empty(shape, at::kFloat),
                   .range = data::pixel_ranges(data::pixel_range_of(source, model), 1),
                   .values = at::empty(shape, at::kFloat)};
  const data::Pixels pixels = reader->decode(0);
  normal.apply(pixels, {}, path, input.image.mutable_data_ptr<float>());
  raw.apply(pixels, {}, path, input.values.mutable_data_ptr<float>());
  return input;
}

void write_picture(const patching::Picture& picture, const std::string& path) {
  const io::Image image{static_cast<int>(picture.width), static_cast<int>(picture.height), 3,
                        picture.rgb};
  core::write_file_atomic(path, io::encode_png(image));
}

io::TensorToWrite entry(const std::string& name, const at::Tensor& tensor) {
  return {name, tensor.scalar_type() == at::kByte ? core::DType::u8 : core::DType::f32,
          tensor.sizes().vec(), tensor.const_data_ptr()};
}

void write_tokens(const PatchInput& input, const PatchLeaves& leaves, const std::string& path) {
  io::write_safetensors(
      path, {entry("tokens", leaves.tokens.squeeze(0)), entry("boxes", leaves.boxes.squeeze(0)),
             entry("image", input.image.squeeze(0)),
             entry("edges", leaves.trees == 1 ? leaves.importance.squeeze(0) : leaves.importance)});
}

void patch(const Arguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const int64_t asked = recipe.model.num_leaves();
  VT_REQUIRE(ConfigError, asked > 0,
             "[patch] model.adaptive.fixed_length or model.mixed_resolution.num_tokens must be at "
             "least 1 but both are {}; give one behind the recipe",
             asked);
  const PatchInput input = read_input(recipe, arguments.input);
  const PatchLeaves leaves = leaves_of(recipe, input, arguments.epoch, arguments.sample);
  write_picture(draw(recipe.model, input, leaves, arguments.slices), arguments.output);
  if (!arguments.tokens.empty()) write_tokens(input, leaves, arguments.tokens);
  fmt::print("{}\nwrote {}\n", describe(recipe.model, leaves), arguments.output);
}

}  // namespace

void add_patch(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "patch", "draw the adaptive patches of an image or volume, or write them as tensors");
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.add(*verb);
  verb->add_option("--input", arguments->input,
                   "an image, a volume, or what else the reader of the recipe's first source reads")
      ->required();
  verb->add_option("--output", arguments->output,
                   "PNG file to write: leaves over the image, what they are divided by, what the "
                   "tokens keep, all leaves as patches")
      ->required();
  verb->add_option("--tokens", arguments->tokens,
                   "safetensors file to write: tokens [C, L, P^k], boxes [L, 2k], edges, image");
  verb->add_option("--slices", arguments->slices,
                   "volumes: also this many slices across the first axis, evenly spaced")
      ->check(CLI::Range(int64_t{0}, int64_t{256}))
      ->capture_default_str();
  verb->add_option("--sample", arguments->sample,
                   "leaves as training makes them for the sample of this global index: thresholds "
                   "drawn from run.seed; else those of evaluation")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--epoch", arguments->epoch, "with --sample: the epoch")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) patch(*arguments);
    };
  });
}

}  // namespace vitrail::app
