#pragma once
/// Initial values by parameter name: a function of (seed, name, element), whatever else the model holds.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/nn/module.h"

namespace vitrail::models {

class Model;

enum class Fill { keep, zeros, ones, constant, normal, truncated_normal, uniform };

struct Initial {
  Fill fill = Fill::zeros;
  double scale =
      0.0;  // constant: the value; normal: standard deviation, truncated: of what is cut at two of them; uniform: half width around zero
};

/// What a parameter starts as, from its full name and itself.
using InitialRule = std::function<Initial(const std::string& name, const at::Tensor& parameter)>;

/// timm's vision transformer: normal(0.02) matrices and positions, zero biases, unit norms, class and register tokens
/// normal(1e-6), patch embedding as a PyTorch convolution; SwiGLU's gate normal(1e-6) with bias one; the latent of
/// attention pooling normal(D^-1/2). Variables: embeddings keep their sin-cos values, one query is zero, several are
/// normal(0.02).
/// `layer_scale` is the initial gamma, `patch_values` the inputs S of one output of the patch convolution; 0 = it is
/// none.
InitialRule timm_initial(double layer_scale, int64_t patch_values);
InitialRule timm_initial(const config::Model& options);
/// facebookresearch/mae: Xavier-uniform matrices (the patch embedding flattened; its bias as a PyTorch convolution's),
/// zero biases, unit norms, class, register and mask tokens normal(0.02); learned positions keep the table they were
/// built with, or of a recipe with leaves are normal(0.02).
InitialRule mae_initial(double layer_scale, int64_t patch_values);
InitialRule mae_initial(const config::Model& options);
/// Inputs of one output of the recipe's patch convolution; 0 when its patches go through a linear layer.
int64_t convolution_values(const config::Model& options);

/// Fills CPU fp32 parameters in place.
void initialise(const std::vector<nn::NamedTensor>& parameters, uint64_t seed,
                const InitialRule& rule);

/// The model of make_model before it has values: parameters that nothing has written to take no memory, so that a model
/// larger than the machine can be filled and taken over one parameter at a time.
std::shared_ptr<Model> make_model_deferred(const config::Model& options);
/// Fills one whole parameter of such a model as make_model does.
std::function<void(const nn::NamedTensor& parameter)> initial_values(const config::Model& options,
                                                                     uint64_t seed);

}  // namespace vitrail::models
