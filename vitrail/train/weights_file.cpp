#include "vitrail/train/weights_file.h"

#include <cstring>
#include <map>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/train/checkpoint_tensor.h"

namespace vitrail::train {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "[" + text + "]";
}

/// What a file's tensor would fill, by name.
class Places {
 public:
  explicit Places(models::Model& model) : model_(model) {
    for (nn::NamedTensor& parameter : model.named_parameters())
      parameters_.emplace(parameter.name, parameter.tensor);
    for (nn::NamedTensor& fixed : model.fixed_tensors()) fixed_.emplace(fixed.name, fixed.tensor);
  }
  bool knows(const std::string& name) const {
    return parameters_.count(name) + fixed_.count(name) > 0;
  }
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }
  std::vector<int64_t> shape(const std::string& name) const {
    const auto found = parameters_.find(name);
    return (found != parameters_.end() ? found->second : fixed_.at(name)).sizes().vec();
  }
  void fill(const std::string& name, const at::Tensor& values) {
    const auto found = parameters_.find(name);
    if (found == parameters_.end())
      model_.set_fixed_tensor(name, values);
    else
      found->second.copy_(values);
  }

 private:
  models::Model& model_;
  std::map<std::string, at::Tensor> parameters_, fixed_;
};

}  // namespace

void write_weights(const std::string& path, const models::Model& model,
                   const parallel::UnitSet& units, const at::Tensor& arena) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> kept;
  std::vector<io::TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    kept.push_back(tensor.detach().to(at::kCPU, at::kFloat).contiguous());
    tensors.push_back({name, core::DType::f32, tensor.sizes().vec(), kept.back().const_data_ptr()});
  };
  std::map<std::string, at::Tensor> by_name;
  units.for_each_slot([&](const parallel::ParameterSlot& slot) {
    by_name.emplace(slot.name, parallel::UnitSet::view(arena, slot));
  });
  for (const nn::NamedTensor& parameter : model.named_parameters())
    add(parameter.name, by_name.at(parameter.name));
  for (const nn::NamedTensor& fixed : model.fixed_tensors()) add(fixed.name, fixed.tensor);
  io::write_safetensors(path, tensors, {{"format", "pt"}});
}

std::vector<nn::NamedTensor> read_weights(const std::string& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  std::vector<nn::NamedTensor> tensors;
  for (const std::string& name : file.names()) {
    const io::SafetensorsInfo& info = file.info(name);
    at::Tensor tensor = at::empty(info.shape, scalar_type(info.dtype));
    const auto bytes = file.bytes(name);
    if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
    tensors.push_back({name, tensor.to(at::kFloat)});
  }
  return tensors;
}

std::string fill_model(models::Model& model, const std::vector<nn::NamedTensor>& tensors,
                       const std::string& origin, bool strict) {
  const at::NoGradGuard no_grad;
  Places places(model);
  std::set<std::string> filled;
  for (const nn::NamedTensor& tensor : tensors) {
    if (!places.knows(tensor.name)) {
      VT_REQUIRE(
          CheckpointError, !strict,
          "[weights] {}: tensor '{}' has no place in this model; check the model section or set "
          "model.weights.strict=false",
          origin, tensor.name);
      continue;
    }
    const std::vector<int64_t> shape = places.shape(tensor.name);
    if (tensor.tensor.sizes() != at::IntArrayRef(shape)) {
      VT_REQUIRE(CheckpointError, !strict,
                 "[weights] {}: tensor '{}' must have shape {} but has {}; check the model section",
                 origin, tensor.name, shape_text(shape), shape_text(tensor.tensor.sizes().vec()));
      continue;
    }
    places.fill(tensor.name, tensor.tensor);
    filled.insert(tensor.name);
  }
  size_t parameters = 0;
  for (const auto& [name, tensor] : places.parameters()) {
    parameters += filled.count(name);
    VT_REQUIRE(CheckpointError, !strict || filled.count(name) > 0,
               "[weights] {}: holds no tensor '{}', which this model needs; check the model "
               "section or --from",
               origin, name);
  }
  VT_REQUIRE(CheckpointError, parameters > 0, "[weights] {}: no tensor fits this model", origin);
  return fmt::format("{} ({} of {} tensors)", origin, parameters, places.parameters().size());
}

}  // namespace vitrail::train
