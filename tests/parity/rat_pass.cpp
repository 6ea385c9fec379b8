// One pass of model.kind rat in fp32 or fp64, for tests/parity/rat.py: RECIPE INPUT OUTPUT. The type is that of the input's
// tensors: 'weight/NAME' for every parameter, and 'image', or 'scale.0', 'scale.1', ... with 'valid.S' (uint8) beside
// them, 'label' (int64). Written are output, loss, the taps that the rest of the command line names, 'grad/NAME', and
// 'grad/image' or 'grad/scale.S'.

#include <cstdio>
#include <exception>
#include <map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"
#include "vitrail/models/rat.h"
#include "vitrail/models/weights.h"

namespace vitrail::models {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

void set_weights(Model& model, const Tensors& given, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  for (nn::NamedTensor& parameter : model.named_parameters()) {
    const auto found = given.find("weight/" + parameter.name);
    VT_CHECK(found != given.end() && found->second.sizes() == parameter.tensor.sizes(),
             "'weight/{}' is missing or of another shape", parameter.name);
    parameter.tensor.set_data(found->second.to(type).clone());
  }
}

at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().set_requires_grad(true); }

at::Tensor gradient(const at::Tensor& x) {
  return x.grad().defined() ? x.grad() : at::zeros_like(x);
}

void pass(int argc, char** argv) {
  const config::Model options = config::load_recipe(argv[1], {}).recipe.model;
  Tensors given;
  for (const nn::NamedTensor& entry : read_tensors(argv[2])) given[entry.name] = entry.tensor;
  Rat model(options);
  const bool whole = given.contains("image");
  const at::ScalarType type = given.at(whole ? "image" : "scale.0").scalar_type();
  set_weights(model, given, type);
  data::Batch batch;
  std::vector<ScaleInput> scales;
  if (whole) batch.image = leaf(given.at("image"));
  for (size_t s = 0; !whole && s < model.grids().size(); ++s) {
    const auto valid = given.find(fmt::format("valid.{}", s));
    scales.push_back({leaf(given.at(fmt::format("scale.{}", s))),
                      valid == given.end() ? at::Tensor() : valid->second.to(at::kBool)});
  }
  batch.label = given.at("label");
  batch.sample_ids = at::arange(batch.label.size(0), at::kLong);
  const nn::Draws draws{0, 0, batch.sample_ids, false};
  const std::vector<std::string> taps(argv + 4, argv + argc);
  const Output out =
      whole ? model.forward(batch, draws, taps) : model.run(scales, batch, draws, taps);
  out.loss.backward();
  std::vector<nn::NamedTensor> results{{"output", out.output.detach()},
                                       {"loss", out.loss.detach()}};
  for (const auto& [name, tensor] : out.taps)
    results.push_back({"tap/" + name, tensor.detach().contiguous()});
  for (const nn::NamedTensor& parameter : model.named_parameters())
    results.push_back({"grad/" + parameter.name, gradient(parameter.tensor)});
  if (whole) results.push_back({"grad/image", gradient(batch.image)});
  for (size_t s = 0; s < scales.size(); ++s)
    results.push_back({fmt::format("grad/scale.{}", s), gradient(scales[s].image)});
  write_tensors(argv[3], results);
}

}  // namespace
}  // namespace vitrail::models

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: rat_pass RECIPE INPUT OUTPUT [TAP...]\n");
    return 2;
  }
  try {
    vitrail::models::pass(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
