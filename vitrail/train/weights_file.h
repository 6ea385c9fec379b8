#pragma once
/// Weights of a model as one safetensors file.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/model.h"
#include "vitrail/nn/module.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::train {

/// An arena's parameters and the model's fixed tensors in fp32 under their own names (timm's for a
/// ViT, the reference's for an MAE); the file appears whole or not at all.
void write_weights(const std::string& path, const models::Model& model,
                   const parallel::UnitSet& units, const at::Tensor& arena);

/// Every tensor of a safetensors file as fp32 on the CPU.
std::vector<nn::NamedTensor> read_weights(const std::string& path);

/// Copies tensors (with our names) into a model on the CPU. strict: every parameter must be there
/// with its shape, and nothing may be left over. Otherwise what fits is taken; returns "150 of 152
/// tensors". throws CheckpointError naming `origin` and the tensor.
std::string fill_model(models::Model& model, const std::vector<nn::NamedTensor>& tensors,
                       const std::string& origin, bool strict);

}  // namespace vitrail::train
