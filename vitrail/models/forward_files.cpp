#include "vitrail/models/forward_files.h"

#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/model.h"
#include "vitrail/models/weights.h"

namespace vitrail::models {
namespace {

/// A tensor of the input file on `device`, undefined when absent.
at::Tensor take(const std::map<std::string, at::Tensor>& tensors, const std::string& name,
                at::ScalarType type, const std::string& path, at::Device device) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return {};
  VT_REQUIRE(DataError, found->second.scalar_type() == type,
             "[forward] {}: '{}' must be {} but is {}", path, name, c10::toString(type),
             c10::toString(found->second.scalar_type()));
  return found->second.to(device);
}

/// [B], or one class a pixel.
bool fits(const at::Tensor& label, const data::Batch& batch, const config::Model& options) {
  if (label.dim() == 0 || label.size(0) != batch.size()) return false;
  if (label.dim() == 1) return true;
  return label.sizes().slice(1) == at::IntArrayRef(options.image_size);
}

/// Classes must exist before the loss reads them.
void check_label(const at::Tensor& label, const data::Batch& batch, const config::Model& options,
                 const std::string& path) {
  VT_REQUIRE(DataError, fits(label, batch, options),
             "[forward] {}: 'label' must be [{}], or [{}, {}] for masks, but is [{}]", path,
             batch.size(), batch.size(), fmt::join(options.image_size, ", "),
             fmt::join(label.sizes(), ", "));
  if (label.numel() == 0 || options.num_classes == 0) return;
  const int64_t low = label.min().item<int64_t>(), high = label.max().item<int64_t>();
  VT_REQUIRE(
      DataError, low >= -1 && high < options.num_classes,
      "[forward] {}: 'label' must be below model.num_classes but holds {} and num_classes is {}",
      path, low < -1 ? low : high, options.num_classes);
}

void check_boxes(const data::Batch& batch, const std::string& path) {
  if (!batch.boxes.defined() && !batch.box_classes.defined()) return;
  const bool fits = batch.boxes.defined() && batch.box_classes.defined() &&
                    batch.boxes.dim() == 3 && batch.boxes.size(2) == 4 &&
                    batch.boxes.size(0) == batch.size() &&
                    batch.box_classes.sizes() == batch.boxes.sizes().slice(0, 2);
  VT_REQUIRE(DataError, fits,
             "[forward] {}: 'boxes' must be [{}, M, 4] beside 'classes' [{}, M]", path,
             batch.size(), batch.size());
}

void check_timestep(const at::Tensor& timestep, const config::Model& options,
                    const std::string& path) {
  const int64_t low = timestep.min().item<int64_t>(), high = timestep.max().item<int64_t>();
  VT_REQUIRE(DataError, low >= 0 && high < options.num_timesteps,
             "[forward] {}: 'timestep' must be from 0 to {} (model.num_timesteps - 1) but holds {}",
             path, options.num_timesteps - 1, low < 0 ? low : high);
}

/// Names of the variables whose places the file gives.
std::vector<std::string> variables_at(const at::Tensor& ids, const config::Model& options,
                                      const std::string& path) {
  std::vector<std::string> names;
  const auto known = static_cast<int64_t>(options.variables.size());
  for (int64_t i = 0; i < ids.numel(); ++i) {
    const int64_t id = ids.flatten()[i].item<int64_t>();
    VT_REQUIRE(DataError, id >= 0 && id < known,
               "[forward] {}: 'variable_ids' must be below {} (model.variables) but holds {}", path,
               known, id);
    names.push_back(options.variables[id]);
  }
  return names;
}

/// The input is data: a file that cannot be read is a DataError, as of any other sample.
std::vector<nn::NamedTensor> read_input(const std::string& path) {
  try {
    return read_tensors(path);
  } catch (const core::CheckpointError& error) {
    throw core::DataError(error.what());
  }
}

data::Batch read_batch(const config::Model& options, const std::string& path, at::Device device) {
  std::map<std::string, at::Tensor> tensors;
  for (const nn::NamedTensor& entry : read_input(path)) tensors[entry.name] = entry.tensor;
  const auto read = [&](const char* name, at::ScalarType type) {
    return take(tensors, name, type, path, device);
  };
  data::Batch batch;
  batch.image = read("image", at::kFloat);
  batch.leaf_tokens = read("leaf_tokens", at::kFloat);
  batch.leaf_boxes = read("leaf_boxes", at::kFloat);
  batch.pixel_range = read("pixel_range", at::kFloat);
  const bool of_leaves = options.num_leaves() > 0 && batch.leaf_tokens.defined();
  const at::Tensor& input = of_leaves ? batch.leaf_tokens : batch.image;
  VT_REQUIRE(DataError, input.defined() && input.dim() >= 3 && input.size(0) > 0,
             "[forward] {} must hold {}", path,
             of_leaves ? "'leaf_tokens' [B, C, L, P^k]" : "'image' [B, C, ...]");
  VT_REQUIRE(DataError, !of_leaves || batch.leaf_boxes.defined(),
             "[forward] {} must hold 'leaf_boxes' [B, L, 2k] beside 'leaf_tokens'", path);
  batch.label = read("label", at::kLong);
  if (batch.label.defined()) check_label(batch.label, batch, options, path);
  batch.boxes = read("boxes", at::kFloat);
  batch.box_classes = read("classes", at::kLong);
  check_boxes(batch, path);
  batch.mask_noise = read("mask_noise", at::kFloat);
  batch.timestep = read("timestep", at::kLong);
  if (batch.timestep.defined() && batch.timestep.numel() > 0)
    check_timestep(batch.timestep, options, path);
  batch.noise = read("noise", at::kFloat);
  if (const at::Tensor ids = take(tensors, "variable_ids", at::kLong, path, at::kCPU);
      ids.defined())
    batch.variables = variables_at(ids, options, path);
  batch.sample_ids = at::arange(batch.size(), at::TensorOptions().dtype(at::kLong).device(device));
  return batch;
}

void add(std::vector<nn::NamedTensor>& results, const std::string& name, const at::Tensor& tensor) {
  if (tensor.defined()) results.push_back({name, tensor.detach().to(at::kCPU, at::kFloat)});
}

/// Gradients of the loss; zero where a parameter has no influence.
void add_gradients(std::vector<nn::NamedTensor>& results, Model& model, const data::Batch& batch,
                   const Output& out) {
  VT_REQUIRE(DataError, out.loss.defined(),
             "[forward] --backward needs a loss; give 'label', or 'boxes' and 'classes', in the input");
  out.loss.backward();
  const auto gradient = [](const at::Tensor& leaf) {
    return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
  };
  for (const nn::NamedTensor& parameter : model.named_parameters())
    add(results, "grad/" + parameter.name, gradient(parameter.tensor));
  if (batch.image.defined()) add(results, "grad/image", gradient(batch.image));
  if (batch.leaf_tokens.defined()) add(results, "grad/leaf_tokens", gradient(batch.leaf_tokens));
}

}  // namespace

void forward_files(const config::Recipe& recipe, const ForwardFiles& files, at::Device device,
                   at::ScalarType dtype) {
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  const std::shared_ptr<Model> model = make_model(recipe.model, seed);
  configure(*model, recipe.train);
  if (!files.weights.empty()) {
    LoadOptions load = load_options(recipe.model);
    load.from = files.from;
    load_weights(*model, files.weights, load);
  }
  move_parameters(*model, device, dtype);

  const at::AutoGradMode grad_mode(files.backward);
  data::Batch batch = read_batch(recipe.model, files.input, device);
  if (files.backward)
    for (at::Tensor* input : {&batch.image, &batch.leaf_tokens})
      if (input->defined()) input->set_requires_grad(true);
  const Output out = model->forward(batch, {seed, 0, batch.sample_ids, files.train}, files.taps);

  std::vector<nn::NamedTensor> results;
  add(results, "output", out.output);
  add(results, "loss", out.loss);
  add(results, "mask", out.mask);
  add(results, "boxes", out.boxes);
  for (const auto& [name, tensor] : out.taps) add(results, "tap/" + name, tensor);
  if (files.backward) add_gradients(results, *model, batch, out);
  write_tensors(files.output, results);
}

}  // namespace vitrail::models
