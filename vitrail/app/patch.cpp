// `vitrail patch`: the adaptive patches of an image or volume, drawn and as tensors.

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>

#include "vitrail/app/verbs.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"
#include "vitrail/io/image.h"
#include "vitrail/io/nifti.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/patching/adaptive.h"
#include "vitrail/patching/picture.h"
#include "vitrail/patching/resample.h"

namespace vitrail::app {
namespace {

struct Arguments {
  RecipeArguments recipe;
  std::string input, output, tokens;
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

/// An image as the model gets it, and its bytes.
struct Input {
  std::vector<int64_t> sides;
  int64_t channels = 0;
  std::vector<float> image;   // normalised, [C, sides...]
  std::vector<float> values;  // before mean and std
  patching::ByteRange range;  // of `values`
};

Input read_input(const config::Recipe& recipe, const std::string& path) {
  const config::Source source = source_of(recipe, path);
  const config::Model model = without_labels(recipe.model);
  const auto reader = data::open_reader(source, model);
  VT_REQUIRE(DataError, reader->size() == 1,
             "[patch] --input must be one image or volume but {} holds {}", path, reader->size());
  const data::Transform normal(source, model, /*training=*/false, /*raw=*/false);
  const data::Transform raw(source, model, /*training=*/false, /*raw=*/true);
  Input input;
  input.sides = recipe.model.image_size;
  input.channels = normal.channels();
  input.image.resize(static_cast<size_t>(normal.values_per_sample()));
  input.values.resize(input.image.size());
  const data::Pixels pixels = reader->decode(0);
  normal.apply(pixels, {}, path, input.image.data());
  raw.apply(pixels, {}, path, input.values.data());
  input.range.stretch = source.normalize == "none";
  return input;
}

patching::AdaptiveOptions options_of(const config::Model& model, bool stretch) {
  VT_REQUIRE(
      ConfigError, model.adaptive.fixed_length > 0,
      "[patch] model.adaptive.fixed_length must be at least 1 but got {}; give it behind the "
      "recipe",
      model.adaptive.fixed_length);
  patching::AdaptiveOptions options;
  options.fixed_length = model.adaptive.fixed_length;
  options.patch_size = model.patch_size;
  options.range.stretch = stretch;
  return options;
}

/// "16: 12, 8: 40": leaves of each edge, the longest side of each.
std::string sizes_text(const patching::Leaves& leaves, size_t axes) {
  std::map<int64_t, int64_t, std::greater<>> counts;
  for (int64_t leaf = 0; leaf < leaves.count; ++leaf) {
    const float* box = leaves.boxes.data() + static_cast<size_t>(leaf) * 2 * axes;
    int64_t edge = 0;
    for (size_t axis = 0; axis < axes; ++axis)
      edge = std::max(edge, static_cast<int64_t>(box[axes + axis] - box[axis]));
    ++counts[edge];
  }
  std::string text;
  for (const auto& [edge, count] : counts)
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", edge, count);
  return text;
}

void write_picture(const Input& input, const patching::Leaves& leaves,
                   const patching::AdaptiveOptions& options, const std::string& path) {
  // The tokens of what people see, whatever the model's normalisation.
  std::vector<float> tokens(leaves.tokens.size());
  patching::serialise(input.values, input.channels, input.sides, leaves.boxes, options.patch_size,
                      tokens);
  // Image and tokens as one, so that both get the same range.
  const size_t values = input.values.size();
  std::vector<float> both = input.values;
  both.resize(2 * values);
  patching::paste(tokens, input.channels, input.sides, leaves.boxes, options.patch_size,
                  std::span(both).subspan(values));
  std::vector<uint8_t> bytes(both.size());
  patching::to_bytes(both, 2 * input.channels, input.range, bytes);
  const std::span<const uint8_t> shown(bytes);
  const patching::Picture picture =
      patching::draw_leaves({input.channels, input.sides, shown.first(values), leaves.edges,
                             shown.subspan(values), leaves.boxes});
  const io::Image image{static_cast<int>(picture.width), static_cast<int>(picture.height), 3,
                        picture.rgb};
  core::write_file_atomic(path, io::encode_png(image));
}

void write_tokens(const Input& input, const patching::Leaves& leaves, int64_t patch_size,
                  const std::string& path) {
  const auto axes = std::ssize(input.sides);
  const int64_t length = std::ssize(leaves.boxes) / (2 * axes);
  int64_t patch_pixels = 1;
  for (int64_t axis = 0; axis < axes; ++axis) patch_pixels *= patch_size;
  std::vector<int64_t> image_shape = input.sides;
  image_shape.insert(image_shape.begin(), input.channels);
  io::write_safetensors(
      path,
      {{"tokens", core::DType::f32, {input.channels, length, patch_pixels}, leaves.tokens.data()},
       {"boxes", core::DType::f32, {length, 2 * axes}, leaves.boxes.data()},
       {"image", core::DType::f32, image_shape, input.image.data()},
       {"edges", core::DType::u8, input.sides, leaves.edges.data()}});
}

void patch(const Arguments& arguments) {
  const config::Recipe recipe = arguments.recipe.load().recipe;
  const Input input = read_input(recipe, arguments.input);
  const patching::AdaptiveOptions options = options_of(recipe.model, input.range.stretch);
  patching::Leaves leaves = patching::patchify(input.values, input.channels, input.sides, options);
  write_picture(input, leaves, options, arguments.output);
  patching::serialise(input.image, input.channels, input.sides, leaves.boxes, options.patch_size,
                      leaves.tokens);
  if (!arguments.tokens.empty()) write_tokens(input, leaves, options.patch_size, arguments.tokens);
  const int64_t edges = std::accumulate(leaves.edges.begin(), leaves.edges.end(), int64_t{0});
  fmt::print("{} leaves of {} ({} padding), {} edge pixels of {}\nleaves by edge: {}\nwrote {}\n",
             leaves.count, options.fixed_length, options.fixed_length - leaves.count, edges,
             leaves.edges.size(), sizes_text(leaves, input.sides.size()), arguments.output);
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
  verb->add_option(
          "--output", arguments->output,
          "PNG file to write: leaves over the image, its edges, what the tokens keep of it")
      ->required();
  verb->add_option("--tokens", arguments->tokens,
                   "safetensors file to write: tokens [C, L, P^k], boxes [L, 2k], edges, image");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) patch(*arguments);
    };
  });
}

}  // namespace vitrail::app
