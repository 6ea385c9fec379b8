#pragma once
/// Weight names of other programs <-> ours.
///
/// Ours are timm's for a ViT and facebookresearch/mae's for an MAE, so those schemes are the identity (timm, from an MAE:
/// the encoder only). hf is transformers: ViTModel, ViTForImageClassification, ViTMAEForPreTraining, in the names of
/// files on the hub (query / key / value) and, when reading, in those of release 5 (q_proj / k_proj / v_proj).

#include <string>
#include <vector>

#include "vitrail/nn/module.h"

namespace vitrail::models {

enum class Naming { vitrail, timm, mae, hf };

/// "vitrail", "timm", "mae", "hf". throws ConfigError.
Naming parse_naming(const std::string& word);
const char* name(Naming naming);

/// The scheme these names follow, judged by names that only it has.
Naming detect_naming(const std::vector<nn::NamedTensor>& tensors);

/// To our names: renamed, q, k, v merged into qkv; what we have no counterpart of (hf's pooler) is dropped, unknown names
/// stay. throws CheckpointError when one of q, k, v is missing.
std::vector<nn::NamedTensor> import_names(const std::vector<nn::NamedTensor>& tensors, Naming from);

/// From our names. throws CheckpointError naming a tensor that the scheme has no name for.
std::vector<nn::NamedTensor> export_names(const std::vector<nn::NamedTensor>& tensors, Naming to);

}  // namespace vitrail::models
