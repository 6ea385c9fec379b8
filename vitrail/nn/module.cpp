#include "vitrail/nn/module.h"

#include <ATen/ops/empty.h>

namespace vitrail::nn {
namespace {

thread_local bool shapes_only = false;

}  // namespace

ShapesOnly::ShapesOnly() : before_(shapes_only) { shapes_only = true; }
ShapesOnly::~ShapesOnly() { shapes_only = before_; }

std::vector<NamedTensor> Module::named_parameters(const std::string& prefix) const {
  std::vector<NamedTensor> all;
  for (const NamedTensor& parameter : parameters_)
    all.push_back({prefix + parameter.name, parameter.tensor});
  for (const auto& [name, child] : children_) {
    std::vector<NamedTensor> below =
        child->named_parameters(name.empty() ? prefix : prefix + name + ".");
    all.insert(all.end(), std::make_move_iterator(below.begin()),
               std::make_move_iterator(below.end()));
  }
  return all;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const NamedTensor& parameter : named_parameters()) count += parameter.tensor.numel();
  return count;
}

at::Tensor Module::register_parameter(std::string name, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(
      shape, at::TensorOptions().dtype(at::kFloat).device(shapes_only ? at::kMeta : at::kCPU));
  tensor.set_requires_grad(true);
  parameters_.push_back({std::move(name), tensor});
  return tensor;
}

}  // namespace vitrail::nn
