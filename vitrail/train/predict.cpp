#include "vitrail/train/predict.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/leaves.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"
#include "vitrail/io/image.h"
#include "vitrail/models/leaves.h"
#include "vitrail/models/metrics_detection.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/handshake.h"
#include "vitrail/train/pictures.h"
#include "vitrail/train/predict_boxes.h"
#include "vitrail/train/predict_masks.h"
#include "vitrail/train/turns.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatch = 64;

/// The file itself, or every image below a folder, sorted.
std::vector<std::string> list_input(const std::string& input) {
  std::error_code error;
  if (fs::is_regular_file(input, error)) return {input};
  VT_REQUIRE(DataError, fs::is_directory(input, error),
             "[predict] {}: there is no such file or folder; check --input", input);
  std::vector<std::string> files;
  for (fs::recursive_directory_iterator entry(input, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->is_regular_file() && io::has_image_extension(entry->path().string()))
      files.push_back(entry->path().string());
  VT_REQUIRE(DataError, !error, "[predict] {}: cannot list the folder: {}", input, error.message());
  VT_REQUIRE(DataError, !files.empty(), "[predict] {}: holds no .jpg, .jpeg or .png file", input);
  std::sort(files.begin(), files.end());
  return files;
}

/// The names of the source that the model was trained on, if it is there and has any.
std::vector<std::string> class_names(const config::Recipe& recipe) {
  try {
    if (!recipe.data.sources.empty())
      return data::open_reader(recipe.data.sources.front(), recipe.model)->class_names();
  } catch (const core::Error&) {  // the training data need not be on the machine that predicts
  }
  return {};
}

/// Decoded, resized and normalised as the first source of the recipe says.
class FileBatches {
 public:
  FileBatches(const config::Recipe& recipe, const config::Source& source)
      : transform_(source, recipe.model, /*training=*/false, /*raw=*/false),
        variables_(source.variables),
        pixel_range_(data::pixel_range_of(source, recipe.model)),
        model_(recipe.model) {}

  data::Batch read(const std::vector<std::string>& files, int64_t first, int64_t count) const {
    std::vector<int64_t> shape{count, transform_.channels()};
    shape.insert(shape.end(), model_.image_size.begin(), model_.image_size.end());
    data::Batch batch;
    batch.variables = variables_;
    batch.image = at::empty(shape, at::kFloat);
    batch.sample_ids = at::arange(first, first + count, at::kLong);
    if (model_.num_leaves() > 0) batch.pixel_range = data::pixel_ranges(pixel_range_, count);
    float* out = batch.image.mutable_data_ptr<float>();
    for (int64_t i = 0; i < count; ++i) {
      const std::string& file = files[first + i];
      transform_.apply(data::read_image_pixels(file), {}, file,
                       out + i * transform_.values_per_sample());
    }
    return batch;
  }

 private:
  data::Transform transform_;
  std::vector<std::string> variables_;
  std::vector<float> pixel_range_;
  const config::Model& model_;
};

/// RFC 4180.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string name_of(const std::vector<std::string>& names, int64_t label) {
  return label < static_cast<int64_t>(names.size()) ? csv_field(names[label])
                                                    : std::to_string(label);
}

std::string csv_heading(int64_t columns) {
  std::string text = "file,class,name,probability";
  for (int64_t k = 1; k <= columns; ++k)
    text += fmt::format(",class_{0},name_{0},probability_{0}", k);
  return text + '\n';
}

std::string class_rows(const std::vector<std::string>& files, int64_t first,
                       const at::Tensor& logits, int64_t columns,
                       const std::vector<std::string>& names) {
  std::string csv;
  const auto [shares, classes] =
      at::topk(at::softmax(logits.to(at::kCPU, at::kFloat), 1), columns, 1);
  for (int64_t i = 0; i < logits.size(0); ++i) {
    std::string best, row;
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t label = classes[i][k].item<int64_t>();
      const std::string cells =
          fmt::format(",{},{},{:.6f}", label, name_of(names, label), shares[i][k].item<float>());
      if (k == 0) best = cells;
      row += cells;
    }
    csv += csv_field(files[first + i]) + best + row + '\n';
  }
  return csv;
}

std::string values_heading(int64_t columns) {
  std::string text = "file";
  for (int64_t k = 0; k < columns; ++k) text += fmt::format(",value{}", k);
  return text + '\n';
}

std::string value_rows(const std::vector<std::string>& files, int64_t first,
                       const at::Tensor& output) {
  std::string csv;
  const at::Tensor values = output.to(at::kCPU, at::kFloat).contiguous();
  for (int64_t i = 0; i < values.size(0); ++i) {
    csv += csv_field(files[first + i]);
    for (int64_t k = 0; k < values.size(1); ++k)
      csv += fmt::format(",{:.9g}", values[i][k].item<float>());
    csv += '\n';
  }
  return csv;
}

std::string box_rows(const std::vector<std::string>& files, int64_t first,
                     const models::Output& output, const config::Model& model,
                     const config::Source& source, const std::vector<std::string>& names) {
  std::string rows;
  for (int64_t i = 0; i < output.output.size(0); ++i)
    rows += box_record(files[first + i],
                       models::found_boxes(output.output[i], output.boxes[i], model,
                                           model.image_size, model.detection.min_score),
                       source, model, names);
  return rows;
}

void write_pictures(const std::string& folder, const std::string& file, int64_t index,
                    const MaskedPictures& pictures) {
  const char* parts[] = {"original", "masked", "reconstruction", "pasted"};
  const std::vector<at::Tensor> all = pictures.all();
  for (size_t k = 0; k < all.size(); ++k) {
    // Files of one name from several folders stay apart by their number.
    const fs::path path = fs::path(folder) / fmt::format("{:05}-{}-{}.png", index,
                                                         fs::path(file).stem().string(), parts[k]);
    core::write_file_atomic(path.string(), png_bytes(all[k]));
  }
}

/// Of one sample, on the CPU.
Leaves leaves_of(const data::Batch& batch, int64_t i) {
  if (!batch.leaf_tokens.defined()) return {};
  return {batch.leaf_tokens[i].cpu(), batch.leaf_boxes[i].cpu()};
}

/// The source whose size and normalisation apply to the files.
config::Source input_source(const config::Recipe& recipe) {
  if (!recipe.eval.sources.empty()) return recipe.eval.sources.front();
  return recipe.data.sources.empty() ? config::Source{} : recipe.data.sources.front();
}

/// A class, values or boxes for each image, or what a masked autoencoder makes of it.
int64_t predict_images(models::Model& model, const config::Recipe& recipe,
                       const config::Source& source, comm::Communicator& world,
                       const PredictOptions& options, at::Device device) {
  const bool classifies = model.task() == models::Task::classification;
  const bool finds_boxes = model.task() == models::Task::detection;
  VT_REQUIRE(ConfigError, recipe.model.image_size.size() == 2,
             "[predict] image files have 2 sides but model.image_size has {}",
             recipe.model.image_size.size());
  const std::vector<std::string> files = list_input(options.input);
  const FileBatches batches(recipe, source);
  const int64_t columns = std::min<int64_t>(5, recipe.model.num_classes);
  const std::vector<std::string> names =
      classifies || finds_boxes ? class_names(recipe) : std::vector<std::string>{};
  const bool of_values = model.task() == models::Task::regression;
  const bool writes_csv = classifies || of_values;
  if (!writes_csv && !finds_boxes) core::make_directories(options.output);
  const models::LeafMaker leaves(recipe.model);
  const auto total = static_cast<int64_t>(files.size());
  const auto predict_batch = [&](int64_t number) -> std::string {
    const int64_t first = number * kBatch;
    data::Batch batch =
        on_device(batches.read(files, first, std::min(kBatch, total - first)), device);
    const nn::Draws draws{static_cast<uint64_t>(recipe.run.seed), 0, batch.sample_ids, false};
    batch = leaves.with_leaves(std::move(batch), draws);
    const models::Output output = model.forward(batch, draws);
    if (classifies) return class_rows(files, first, output.output, columns, names);
    if (of_values) return value_rows(files, first, output.output);
    if (finds_boxes) return box_rows(files, first, output, recipe.model, source, names);
    for (int64_t i = 0; i < batch.size(); ++i)
      write_pictures(
          options.output, files[first + i], first + i,
          masked_pictures(batch.image[i].cpu(), output.output[i].to(at::kCPU, at::kFloat),
                          output.mask[i].cpu(), recipe.model, source, leaves_of(batch, i)));
    return {};
  };
  const std::string rows = in_turns(world, (total + kBatch - 1) / kBatch, predict_batch);
  if (finds_boxes && world.rank() == 0) core::write_file_atomic(options.output, box_list(rows));
  if (writes_csv && world.rank() == 0)
    core::write_file_atomic(
        options.output,
        (of_values ? values_heading(recipe.model.num_classes) : csv_heading(columns)) + rows);
  return total;
}

}  // namespace

int64_t predict_files(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                      const PredictOptions& options) {
  const c10::NoGradGuard no_grad;
  const config::Recipe& recipe = resolved.recipe;
  VT_REQUIRE(ConfigError, !(recipe.model.kind == "diffusion"),
             "[predict] a diffusion model has nothing to say of a file; use vitrail sample");
  const config::Source source = input_source(recipe);
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  handshake(world, resolved, options.version, device);
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  load_weights(*model, recipe, options.weights);
  models::move_parameters(*model, device, compute_dtype(recipe.train));
  const models::Task task = model->task();
  const bool of_pixels = recipe.model.kind == "unetr" || recipe.model.kind == "sap" ||
                         task == models::Task::segmentation;
  const int64_t images = of_pixels ? predict_masks(*model, recipe, source, world, options.input,
                                                   options.output, device)
                                   : predict_images(*model, recipe, source, world, options, device);
  world.barrier();
  return images;
}

}  // namespace vitrail::train
