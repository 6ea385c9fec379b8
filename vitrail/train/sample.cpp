#include "vitrail/train/sample.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/batch.h"
#include "vitrail/io/npy.h"
#include "vitrail/models/diffusion.h"
#include "vitrail/models/diffusion_noise.h"
#include "vitrail/models/weights.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/handshake.h"
#include "vitrail/train/pictures.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kDdimSteps = 50;
constexpr int64_t kSlicesOfAVolume = 3;
constexpr int64_t kColumns = 10;       // of a sheet with classes
constexpr int64_t kSmallestSide = 48;  // pixels of one picture on a sheet
constexpr int64_t kGap = 2;

config::Source first_source(const config::Recipe& recipe) {
  return recipe.data.sources.empty() ? config::Source{} : recipe.data.sources.front();
}

int64_t steps_of(const config::Model& model, const DrawOptions& options) {
  if (options.steps > 0) return options.steps;
  const bool all = options.method == models::SamplingMethod::ddpm;
  return all ? model.num_timesteps : std::min(kDdimSteps, model.num_timesteps);
}

/// Variables of the drawn images: those of the first source, so that its mean and std fit.
std::vector<std::string> variables_of(const config::Model& model, const config::Source& source) {
  if (model.variables.empty() || !source.variables.empty()) return source.variables;
  return model.single_channel ? std::vector<std::string>{model.variables.front()} : model.variables;
}

/// The classes of samples `first` ... `first` + `count` - 1.
at::Tensor labels_of(const config::Model& model, const DrawOptions& options, int64_t first,
                     int64_t count) {
  const auto type = at::TensorOptions().dtype(at::kLong);
  if (model.num_classes == 0 || options.guidance == 0.0) return at::full({count}, -1, type);
  if (options.label) return at::full({count}, *options.label, type);
  return at::arange(first, first + count, type).remainder(model.num_classes);
}

/// The noise predictor of one batch of samples, and where its noise comes from.
class Drawing {
 public:
  Drawing(NoisePass model, const DrawOptions& options, std::vector<std::string> variables,
          const at::Tensor& ids, const at::Tensor& labels, std::vector<int64_t> shape)
      : model_(std::move(model)),
        options_(options),
        shape_(std::move(shape)),
        ids_(ids),
        labels_(labels) {
    batch_.variables = std::move(variables);
  }

  at::Tensor normal(models::NoiseDraw what, int64_t step) const {
    const core::DrawKey key{options_.seed, core::Stream::noise, static_cast<uint32_t>(step),
                            static_cast<uint16_t>(what)};
    return models::normal(key, ids_, shape_);
  }

  at::Tensor predict(const at::Tensor& x, int64_t t) {
    const bool guided = options_.guidance != 1.0 && options_.guidance != 0.0;
    if (!guided) return pass(x, labels_, ids_, t);
    // Both passes as one batch: with the class, then without.
    const at::Tensor none = at::full_like(labels_, -1);
    const at::Tensor both =
        pass(at::cat({x, x}), at::cat({labels_, none}), at::cat({ids_, ids_}), t);
    const std::vector<at::Tensor> halves = both.chunk(2);
    return halves[1] + (halves[0] - halves[1]) * options_.guidance;
  }

 private:
  at::Tensor pass(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& ids, int64_t t) {
    batch_.image = x;
    batch_.label = labels;
    batch_.sample_ids = ids;
    batch_.timestep = at::full({x.size(0)}, t, ids.options());
    return model_(batch_);
  }

  NoisePass model_;
  const DrawOptions& options_;
  std::vector<int64_t> shape_;
  at::Tensor ids_, labels_;
  data::Batch batch_;
};

/// What 0 and 1 became by the source's mean and std; undefined when values were not brought to [0, 1].
void set_range(models::SamplerOptions& sampler, const config::Source& source, int64_t channels,
               size_t axes, at::Device device) {
  if (source.normalize == "none") return;
  std::vector<int64_t> shape(axes + 1, 1);
  shape[0] = channels;
  const at::Tensor zero = at::zeros(shape), one = at::ones(shape);
  const at::Tensor mean = denormalised(zero, source), std = denormalised(one, source) - mean;
  sampler.low = ((zero - mean) / std).unsqueeze(0).to(device);
  sampler.high = ((one - mean) / std).unsqueeze(0).to(device);
}

/// Nearest-neighbour enlargement of [C, H, W] by a whole factor.
at::Tensor enlarged(const at::Tensor& picture) {
  const int64_t side = std::max(picture.size(1), picture.size(2));
  const int64_t factor = std::max<int64_t>(1, (kSmallestSide + side - 1) / side);
  return picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2);
}

/// [C, H, W] or [C, D, H, W] -> grey or RGB [C, H, W], slices of a volume side by side.
at::Tensor flat(const at::Tensor& image) {
  const at::Tensor shown = image.size(0) == 3 ? image : image.narrow(0, 0, 1);
  return at::cat(depth_slices(shown, kSlicesOfAVolume), 2).clamp(0, 1);
}

std::string sample_name(int64_t i, int64_t label, const char* extension) {
  return label < 0 ? fmt::format("{:05}{}", i, extension)
                   : fmt::format("{:05}-class-{}{}", i, label, extension);
}

void write_folder(const Samples& samples, const config::Model& model, const std::string& folder) {
  core::make_directories(folder);
  for (int64_t i = 0; i < samples.images.size(0); ++i) {
    const at::Tensor image = samples.images[i].contiguous();
    const bool volume = image.dim() == 4;
    const fs::path path = fs::path(folder) / sample_name(i, samples.labels[i].item<int64_t>(),
                                                         volume ? ".npy" : ".png");
    if (volume)
      io::write_npy(path.string(), core::DType::f32, image.sizes(), image.const_data_ptr<float>());
    else
      core::write_file_atomic(path.string(), png_bytes(image));
  }
  core::write_file_atomic((fs::path(folder) / "sheet.png").string(),
                          png_bytes(sheet(samples, model)));
}

void write_samples(const Samples& samples, const config::Model& model, const std::string& output) {
  const std::string extension = fs::path(output).extension().string();
  if (extension == ".png")
    core::write_file_atomic(output, png_bytes(sheet(samples, model)));
  else if (extension == ".safetensors")
    models::write_tensors(output, {{"image", samples.images}, {"label", samples.labels}});
  else
    write_folder(samples, model, output);
}

int64_t sheet_columns(const config::Model& model, int64_t count) {
  if (model.num_classes > 1) return std::min({model.num_classes, kColumns, count});
  return std::min<int64_t>(count,
                           static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(count)))));
}

}  // namespace

void check_draw(const config::Model& model, const DrawOptions& options) {
  VT_REQUIRE(
      ConfigError, model.kind == "diffusion",
      "[sample] model.kind must be diffusion but got {}; vitrail predict applies other models",
      model.kind.value);
  VT_REQUIRE(ConfigError, options.count >= 1 && options.batch >= 1,
             "[sample] count and batch must be at least 1 but got {} and {}", options.count,
             options.batch);
  models::sampling_levels(model.num_timesteps, steps_of(model, options));
  VT_REQUIRE(ConfigError, std::isfinite(options.guidance) && options.guidance >= 0.0,
             "[sample] guidance must be 0 or more but got {}", options.guidance);
  VT_REQUIRE(ConfigError, model.num_classes > 0 || (!options.label && options.guidance == 1.0),
             "[sample] {} needs a model with classes but model.num_classes is 0",
             options.label ? "a class" : "guidance");
  VT_REQUIRE(
      ConfigError, !options.label || (*options.label >= 0 && *options.label < model.num_classes),
      "[sample] class must be in [0, {}) but got {}", model.num_classes, options.label.value_or(0));
}

NoisePass noise_pass(const models::Model& model, parallel::Engine& engine) {
  const auto* diffusion = dynamic_cast<const models::Diffusion*>(&model);
  VT_CHECK(diffusion, "[sample] the model must be a diffusion model as the recipe says but is not");
  return [diffusion, &engine](const data::Batch& noisy) {
    // A whole pass adds noise itself: an image that becomes the noisy one without any.
    data::Batch batch = noisy;
    const auto level = noisy.timestep.select(0, 0).item<int64_t>();
    batch.image = noisy.image / std::sqrt(diffusion->schedule().alpha_bar(level));
    batch.noise = at::zeros_like(noisy.image);
    return engine.evaluate(batch, {0, 0, batch.sample_ids, /*training=*/false}).output;
  };
}

namespace {

/// Draws batches, each a function of its first sample's number.
class BatchDrawer {
 public:
  BatchDrawer(models::Model& model, const config::Recipe& recipe, at::Device device,
              const DrawOptions& options, const NoisePass& pass)
      : diffusion_(dynamic_cast<models::Diffusion*>(&model)),
        recipe_(recipe),
        device_(device),
        options_(options),
        source_(first_source(recipe)),
        variables_(variables_of(recipe.model, source_)),
        sampler_{options.method, options.variance, steps_of(recipe.model, options)},
        pass_(pass) {
    VT_CHECK(diffusion_,
             "[sample] the model must be a diffusion model as the recipe says but is not");
    if (!pass_)
      pass_ = [this](const data::Batch& noisy) { return diffusion_->predict_noise(noisy); };
    shape_.push_back(variables_.empty() ? recipe.model.in_channels
                                        : static_cast<int64_t>(variables_.size()));
    shape_.insert(shape_.end(), recipe.model.image_size.begin(), recipe.model.image_size.end());
    if (options.clip)
      set_range(sampler_, source_, shape_[0], recipe.model.image_size.size(), device);
  }
  BatchDrawer(const BatchDrawer&) = delete;
  BatchDrawer& operator=(const BatchDrawer&) = delete;

  int64_t batches() const { return (options_.count + options_.batch - 1) / options_.batch; }
  int64_t first(int64_t batch) const { return batch * options_.batch; }
  int64_t count(int64_t batch) const {
    return std::min(options_.batch, options_.count - first(batch));
  }
  at::Tensor labels(int64_t batch) const {
    return labels_of(recipe_.model, options_, first(batch), count(batch));
  }
  /// Without values, for those of another rank.
  at::Tensor blank(int64_t batch) const {
    std::vector<int64_t> shape = shape_;
    shape.insert(shape.begin(), count(batch));
    return at::empty(shape, at::kFloat);
  }
  at::Tensor draw(int64_t batch) const {
    const at::Tensor ids =
        at::arange(first(batch), first(batch) + count(batch), at::kLong).to(device_);
    Drawing drawing(pass_, options_, variables_, ids, labels(batch).to(device_), shape_);
    const at::Tensor x = models::sample(
        diffusion_->schedule(), sampler_, drawing.normal(models::NoiseDraw::start, 0),
        [&](const at::Tensor& at_t, int64_t t) { return drawing.predict(at_t, t); },
        [&](int64_t t) { return drawing.normal(models::NoiseDraw::step, t); });
    std::vector<at::Tensor> images;
    for (const at::Tensor& image : x.cpu().unbind(0))
      images.push_back(denormalised(image, source_));
    return at::stack(images);
  }

 private:
  models::Diffusion* diffusion_;
  const config::Recipe& recipe_;
  at::Device device_;
  const DrawOptions& options_;
  config::Source source_;
  std::vector<std::string> variables_;
  std::vector<int64_t> shape_;  // of one sample
  models::SamplerOptions sampler_;
  NoisePass pass_;
};

}  // namespace

Samples draw_samples(models::Model& model, const config::Recipe& recipe, at::Device device,
                     const DrawOptions& options, const NoisePass& pass) {
  const at::NoGradGuard no_grad;
  check_draw(recipe.model, options);
  const BatchDrawer drawer(model, recipe, device, options, pass);
  std::vector<at::Tensor> images, labels;
  for (int64_t batch = 0; batch < drawer.batches(); ++batch) {
    images.push_back(drawer.draw(batch));
    labels.push_back(drawer.labels(batch));
  }
  return {at::cat(images), at::cat(labels)};
}

Samples draw_together(models::Model& model, const config::Recipe& recipe, at::Device device,
                      const DrawOptions& options, comm::Communicator& world) {
  const at::NoGradGuard no_grad;
  check_draw(recipe.model, options);
  const BatchDrawer drawer(model, recipe, device, options, {});
  const int64_t ranks = world.size(), rank = world.rank();
  std::vector<at::Tensor> images, labels;
  for (int64_t first = 0; first < drawer.batches(); first += ranks) {
    at::Tensor mine;
    if (first + rank < drawer.batches()) mine = drawer.draw(first + rank).contiguous();
    if (rank > 0) {
      if (mine.defined()) world.send(parallel::buffer_of(mine), 0).wait();
      continue;
    }
    for (int64_t batch = first; batch < std::min(first + ranks, drawer.batches()); ++batch) {
      if (batch > first) {
        mine = drawer.blank(batch);
        world.receive(parallel::buffer_of(mine), static_cast<int>(batch - first)).wait();
      }
      images.push_back(mine);
      labels.push_back(drawer.labels(batch));
    }
  }
  return rank == 0 ? Samples{at::cat(images), at::cat(labels)} : Samples{};
}

at::Tensor sheet(const Samples& samples, const config::Model& model) {
  const int64_t count = samples.images.size(0), columns = sheet_columns(model, count),
                rows = (count + columns - 1) / columns;
  at::Tensor page;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor picture = enlarged(flat(samples.images[i]));
    const int64_t H = picture.size(1), W = picture.size(2);
    if (!page.defined())
      page = at::ones({picture.size(0), rows * (H + kGap) + kGap, columns * (W + kGap) + kGap});
    page.narrow(1, kGap + i / columns * (H + kGap), H)
        .narrow(2, kGap + i % columns * (W + kGap), W)
        .copy_(picture);
  }
  return page;
}

PictureTable sample_sheet(models::Model& model, const config::Recipe& recipe, at::Device device,
                          int64_t count, const NoisePass& pass) {
  DrawOptions options;
  options.count = count;
  options.seed = static_cast<uint64_t>(recipe.run.seed);
  const bool classes = recipe.model.num_classes > 0;
  if (classes && recipe.model.class_drop_rate > 0.0) options.guidance = kSheetGuidance;
  const Samples samples = draw_samples(model, recipe, device, options, pass);
  const int64_t columns = sheet_columns(recipe.model, count);
  PictureTable table{"Samples drawn from noise", {}, {}};
  for (int64_t c = 0; c < columns; ++c)
    table.columns.push_back(classes && columns == recipe.model.num_classes
                                ? fmt::format("class {}", c)
                                : std::string());
  for (int64_t i = 0; i < count; ++i) {
    if (i % columns == 0) table.rows.emplace_back();
    table.rows.back().push_back(png_bytes(enlarged(flat(samples.images[i]))));
  }
  return table;
}

void sample_recipe(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                   const SampleOptions& options) {
  const config::Recipe& recipe = resolved.recipe;
  check_draw(recipe.model, options.draw);
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  set_determinism(recipe.run);
  handshake(world, resolved, options.version, device);
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  load_weights(*model, recipe, options.weights);
  models::move_parameters(*model, device, compute_dtype(recipe.train));
  const Samples samples = draw_together(*model, recipe, device, options.draw, world);
  if (world.rank() == 0) write_samples(samples, recipe.model, options.output);
  world.barrier();
}

}  // namespace vitrail::train
