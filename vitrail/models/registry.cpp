#include <map>

#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/models/init.h"
#include "vitrail/models/mae.h"
#include "vitrail/models/model.h"
#include "vitrail/models/vit.h"
#include "vitrail/ops/attention.h"

namespace vitrail::models {
namespace {

/// A model family: how to build it and what its parameters start as.
struct Family {
  std::shared_ptr<Model> (*build)(const config::Model& options);
  InitialRule (*initial)(double layer_scale, int64_t patch_values);
};

template <class Kind>
std::shared_ptr<Model> build(const config::Model& options) {
  return std::make_shared<Kind>(options);
}

const std::map<std::string, Family>& families() {
  static const std::map<std::string, Family> table{
      {"vit", {build<Vit>, timm_initial}},
      {"mae", {build<Mae>, mae_initial}},
  };
  return table;
}

}  // namespace

std::shared_ptr<Model> make_model(const config::Model& options, uint64_t seed) {
  const auto family = families().find(options.kind.value);
  VT_REQUIRE(ConfigError, family != families().end(),
             "[config] model.kind '{}' is not a model of this program", options.kind.value);
  std::shared_ptr<Model> model = family->second.build(options);
  initialise(model->named_parameters(), seed,
             family->second.initial(options.layer_scale.value_or(0.0), options.patch_values()));
  return model;
}

void configure(Model& model, const config::Train& train) {
  for (nn::Stack* stack : model.stacks()) {
    stack->set_engine(nn::autograd_engine(train.recompute == "block"));
    for (int i = 0; i < stack->depth(); ++i) {
      if (train.attention == "plain")
        stack->block(i).attention().set_attend(
            [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
              return ops::plain_attention(q, k, v);
            });
      else
        stack->block(i).attention().set_attend(ops::sdpa);
    }
  }
}

void move_parameters(Model& model, at::Device device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  for (nn::NamedTensor& parameter : model.named_parameters())
    parameter.tensor.set_data(parameter.tensor.to(device, dtype));
}

void Model::set_fixed_tensor(const std::string& name, const at::Tensor&) {
  core::fail<core::Error>("[model] '{}' is not a fixed tensor of this model", name);
}

bool decays(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() >= 2 && name.ends_with(".weight");
}

}  // namespace vitrail::models
