#include <map>

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/models/diffusion.h"
#include "vitrail/models/encoder.h"
#include "vitrail/models/init.h"
#include "vitrail/models/mae.h"
#include "vitrail/models/model.h"
#include "vitrail/models/rat.h"
#include "vitrail/models/sap.h"
#include "vitrail/models/unetr.h"
#include "vitrail/models/vit.h"
#include "vitrail/models/vit_detection.h"
#include "vitrail/nn/engine.h"
#include "vitrail/ops/attention.h"

namespace vitrail::models {
namespace {

/// A model family: how to build it and what its parameters start as.
struct Family {
  std::shared_ptr<Model> (*build)(const config::Model& options);
  InitialRule (*initial)(const config::Model& options);
};

template <class Kind>
std::shared_ptr<Model> build(const config::Model& options) {
  return std::make_shared<Kind>(options);
}

const std::map<std::string, Family>& families() {
  static const std::map<std::string, Family> table{
      {"vit", {build<Vit>, timm_initial}},
      {"mae", {build<Mae>, mae_initial}},
      {"unetr", {build<Unetr>, unetr_initial}},
      {"sap", {build<Sap>, sap_initial}},
      {"diffusion", {build<Diffusion>, diffusion_initial}},
      {"rat", {build<Rat>, rat_initial}},
      {"vit_detection", {build<VitDetection>, vit_detection_initial}},
  };
  return table;
}

const Family& family_of(const config::Model& options) {
  const auto family = families().find(options.kind.value);
  VT_REQUIRE(ConfigError, family != families().end(),
             "[config] model.kind '{}' is not a model of this program", options.kind.value);
  return family->second;
}

}  // namespace

std::shared_ptr<Model> make_model(const config::Model& options, uint64_t seed) {
  const Family& family = family_of(options);
  std::shared_ptr<Model> model = family.build(options);
  initialise(model->named_parameters(), seed, family.initial(options));
  return model;
}

std::shared_ptr<Model> make_model_deferred(const config::Model& options) {
  // Filling fresh memory, a debugging aid of deterministic runs, would touch all of it.
  at::Context& context = at::globalContext();
  const bool fills = context.deterministicFillUninitializedMemory();
  context.setDeterministicFillUninitializedMemory(false);
  const std::shared_ptr<Model> model = family_of(options).build(options);
  context.setDeterministicFillUninitializedMemory(fills);
  return model;
}

std::function<void(const nn::NamedTensor&)> initial_values(const config::Model& options,
                                                           uint64_t seed) {
  return [rule = family_of(options).initial(options), seed](const nn::NamedTensor& parameter) {
    initialise({parameter}, seed, rule);
  };
}

std::shared_ptr<Model> make_model_shapes(const config::Model& options) {
  const nn::ShapesOnly shapes_only;
  return family_of(options).build(options);
}

void configure(Model& model, const config::Train& train) {
  if (const auto encoder = dynamic_cast<EncoderModel*>(&model)) encoder->set_decatt(train.decatt);
  for (nn::Stack* stack : model.stacks()) {
    stack->set_engine(nn::block_engine(train, nn::engine_options(train)));
    for (int i = 0; i < stack->depth(); ++i) {
      if (train.attention == "plain")
        stack->block(i).attention().set_attend([](const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v,
                                                  const at::Tensor& key_mask_BL) {
          return ops::plain_attention(q, k, v, key_mask_BL);
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

data::Batch Model::prepared(data::Batch batch, const nn::Draws&) const { return batch; }

at::Tensor Model::features(const data::Batch&, const nn::Draws&) {
  core::fail<core::ConfigError>("[model] this model has no encoder whose features could be read");
}

void Model::set_fixed_tensor(const std::string& name, const at::Tensor&) {
  core::fail<core::Error>("[model] '{}' is not a fixed tensor of this model", name);
}

bool decays(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() >= 2 && name.ends_with(".weight");
}

}  // namespace vitrail::models
