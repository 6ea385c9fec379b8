// Every model and block option: one pass forward and backward on the GPU against the CPU.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/nn/stack.h"
#include "vitrail/train/assembly.h"

namespace vitrail::models {
namespace {

config::Model segmenter(const char* kind, bool volume) {
  config::Model options = tiny(kind);
  if (volume) make_3d(options);
  options.depth = 4;
  options.class_token = false;
  options.feature_size = 4;
  options.decoder.value = "conv";
  options.loss.value = "dice_ce";
  options.num_classes = 3;
  return options;
}

config::Model diffusion(bool volume) {
  config::Model options = tiny("diffusion");
  if (volume) make_3d(options);
  options.class_token = false;
  options.time_conditioning.value = "block";
  options.loss.value = "mse";
  options.num_timesteps = 100;
  return options;
}

/// Leaves are made of the image where the model runs.
config::Model over_leaves(const char* kind, bool volume, const char* space = "leaf") {
  config::Model options = segmenter(kind, volume);
  options.adaptive.fixed_length = 9, options.adaptive.min_leaf = 2;
  options.adaptive.loss_space.value = space;
  return options;
}

config::Model over_patches_of_sizes(const char* kind) {
  config::Model options = segmenter(kind, false);
  make_mixed(options);
  options.pos_embed.value = "sincos";
  return options;
}

std::map<std::string, config::Model> cases() {
  std::map<std::string, config::Model> all;
  for (const Variant& variant : variants()) all.emplace(variant.name, variant.options());
  for (const bool volume : {false, true}) {
    const std::string suffix = volume ? "_3d" : "_2d";
    all.emplace("unetr" + suffix, segmenter("unetr", volume));
    all.emplace("sap" + suffix, segmenter("sap", volume));
    all.emplace("diffusion" + suffix, diffusion(volume));
    all.emplace("unetr_adaptive" + suffix, over_leaves("unetr", volume));
    all.emplace("sap_adaptive" + suffix, over_leaves("sap", volume));
    all.emplace("sap_adaptive_on_the_image" + suffix, over_leaves("sap", volume, "image"));
  }
  all.emplace("unetr_mixed_resolution", over_patches_of_sizes("unetr"));
  all.emplace("sap_mixed_resolution", over_patches_of_sizes("sap"));
  return all;
}

struct Pass {
  at::Tensor output, loss;
  std::map<std::string, at::Tensor> gradients;
};

data::Batch inputs(const config::Model& options, Task task) {
  data::Batch batch = batch_for(options, 3);
  if (task == Task::segmentation && !batch.image.defined()) {
    config::Model dense = options;
    dense.adaptive.fixed_length = 0;
    batch = batch_for(dense, 3);
  }
  if (task == Task::segmentation)
    batch.label = (random(batch.image.select(1, 0).sizes(), 7) + 1.0)
                      .mul(0.5 * static_cast<double>(options.num_classes))
                      .to(at::kLong)
                      .clamp(0, options.num_classes - 1);
  return batch;
}

/// Training mode: dropouts and drop-path draw, masks and noise are drawn from sample ids.
Pass pass(const config::Model& options, at::Device device, at::ScalarType dtype) {
  const auto model = make_model(options, 1);
  randomise(*model);
  data::Batch batch = inputs(options, model->task());
  move_parameters(*model, device, dtype);
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(device);
  const Output output = model->forward(batch, draws_of(batch, /*training=*/true));
  output.loss.backward();
  Pass result{output.output.detach().cpu(), output.loss.detach().cpu(), {}};
  for (const nn::NamedTensor& parameter : model->named_parameters())
    if (parameter.tensor.grad().defined())
      result.gradients[parameter.name] = parameter.tensor.grad().to(at::kCPU, at::kDouble);
  return result;
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).norm() / y.norm().clamp_min(1e-30)).item<double>();
}

/// All gradients as one vector: single tensors may be zero in theory and rounding noise in practice.
double relative(const Pass& a, const Pass& b) {
  double difference = 0, size = 0;
  for (const auto& [name, gradient] : b.gradients) {
    difference += (a.gradients.at(name) - gradient).square().sum().item<double>();
    size += gradient.square().sum().item<double>();
  }
  return std::sqrt(difference / size);
}

void compare(at::ScalarType dtype, double allowed_output, double allowed_gradient) {
  double output = 0, gradient = 0;
  for (const auto& [name, base] : cases()) {
    config::Model options = base;
    options.drop_path_rate = 0.2;
    options.proj_drop_rate = 0.1;
    const Pass host = pass(options, at::kCPU, at::kFloat);
    const Pass device = pass(options, at::kCUDA, dtype);
    ASSERT_EQ(host.gradients.size(), device.gradients.size()) << name;
    const double by_output = relative(device.output, host.output);
    const double by_gradient = relative(device, host);
    EXPECT_LE(by_output, allowed_output) << name;
    EXPECT_LE(by_gradient, allowed_gradient) << name;
    EXPECT_LE(relative(device.loss, host.loss), allowed_output) << name;
    output = std::max(output, by_output);
    gradient = std::max(gradient, by_gradient);
  }
  std::printf("%zu models: worst output %.2g (allowed %.2g), gradient %.2g (allowed %.2g)\n",
              cases().size(), output, allowed_output, gradient, allowed_gradient);
}

TEST(GpuModels, EveryModelComputesOnTheGpuWhatItComputesOnTheCpu) {
  const at::Device device = train::choose_device(config::Run{}, comm::Launch{});
  ASSERT_TRUE(device.is_cuda());
  // fp32 sums of some hundred terms in another order.
  compare(at::kFloat, 1e-5, 1e-4);
}

TEST(GpuModels, Bf16StaysWithinItsRounding) {
  // 2^-9 a rounding, some tens of them one after another in these shallow models; gradients twice that depth.
  compare(at::kBFloat16, 0.06, 0.25);
}

}  // namespace
}  // namespace vitrail::models
