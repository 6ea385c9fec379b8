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

/// Classes must exist before the loss reads them.
void check_label(const at::Tensor& label, const data::Batch& batch, const config::Model& options,
                 const std::string& path) {
  VT_REQUIRE(DataError, label.dim() == 1 && label.size(0) == batch.size(),
             "[forward] {}: 'label' must be [{}] but is [{}]", path, batch.size(),
             fmt::join(label.sizes(), ", "));
  if (label.numel() == 0 || options.num_classes == 0) return;
  const int64_t low = label.min().item<int64_t>(), high = label.max().item<int64_t>();
  VT_REQUIRE(
      DataError, low >= -1 && high < options.num_classes,
      "[forward] {}: 'label' must be below model.num_classes but holds {} and num_classes is {}",
      path, low < -1 ? low : high, options.num_classes);
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
  data::Batch batch;
  batch.image = take(tensors, "image", at::kFloat, path, device);
  VT_REQUIRE(DataError, batch.image.defined() && batch.image.dim() >= 3 && batch.image.size(0) > 0,
             "[forward] {} must hold 'image' [B, C, ...]", path);
  batch.label = take(tensors, "label", at::kLong, path, device);
  if (batch.label.defined()) check_label(batch.label, batch, options, path);
  batch.mask_noise = take(tensors, "mask_noise", at::kFloat, path, device);
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
             "[forward] --backward needs a loss; give 'label' in the input");
  out.loss.backward();
  const auto gradient = [](const at::Tensor& leaf) {
    return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
  };
  for (const nn::NamedTensor& parameter : model.named_parameters())
    add(results, "grad/" + parameter.name, gradient(parameter.tensor));
  add(results, "grad/image", gradient(batch.image));
}

}  // namespace

void forward_files(const config::Recipe& recipe, const ForwardFiles& files, at::Device device,
                   at::ScalarType dtype) {
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  const std::shared_ptr<Model> model = make_model(recipe.model, seed);
  configure(*model, recipe.train);
  if (!files.weights.empty())
    load_weights(*model, files.weights, files.from, recipe.model.weights.strict);
  move_parameters(*model, device, dtype);

  const at::AutoGradMode grad_mode(files.backward);
  data::Batch batch = read_batch(recipe.model, files.input, device);
  if (files.backward) batch.image.set_requires_grad(true);
  const Output out = model->forward(batch, {seed, 0, batch.sample_ids, files.train}, files.taps);

  std::vector<nn::NamedTensor> results;
  add(results, "output", out.output);
  add(results, "loss", out.loss);
  add(results, "mask", out.mask);
  for (const auto& [name, tensor] : out.taps) add(results, "tap/" + name, tensor);
  if (files.backward) add_gradients(results, *model, batch, out);
  write_tensors(files.output, results);
}

}  // namespace vitrail::models
