#pragma once
/// Weight names of other programs <-> ours.
///
/// Ours are timm's for a ViT, facebookresearch/mae's for an MAE and MONAI's for the convolutions of a UNETR.
/// vitrail         as they are
/// timm            VisionTransformer. Packed SwiGLU matrices (fc1 of twice the width) are read; the decoder of an MAE is
///                 not written
/// mae             facebookresearch/mae, the same names
/// hf              transformers: ViT, ViTMAE, DINOv2, DINOv2 with registers, in the names of files on the hub (query /
///                 key / value) and, when reading, in those of release 5 (q_proj / k_proj / v_proj). DINOv3 is refused:
///                 its rotary angles are of coordinates scaled to [-1, 1], ours of grid indices
/// monai           ViT and UNETR; both patch embeddings, convolution and "perceptron"
/// ucf-vit         UCF-VIT's five models; a UNETR with a linear decoder is read, and written as a ViT
/// torchtitan-mae  eminorhan/torchtitan-mae's 3-D MAE, of separate wq / wk / wv and w1 / w2 / w3
/// Only safetensors are read. Files of pickles (.pth, .ckpt) are written anew first, in Python:
///   safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(path)["model"].items()}, "out.safetensors")

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/nn/module.h"

namespace vitrail::models {

enum class Naming { vitrail, timm, mae, hf, monai, ucf_vit, torchtitan_mae };

/// "vitrail", "timm", "mae", "hf", "monai", "ucf-vit", "torchtitan-mae". throws ConfigError.
Naming parse_naming(const std::string& word);
const char* name(Naming naming);
/// All words, in the order above.
std::vector<std::string> naming_words();

/// The scheme these names follow, judged by names that only it has.
Naming detect_naming(const std::vector<nn::NamedTensor>& tensors);

/// Tensors under other names, and what was done beyond renaming, joining and splitting: (tensor, what).
struct Renamed {
  std::vector<nn::NamedTensor> tensors;
  std::vector<std::pair<std::string, std::string>> notes;
};

/// To our names: renamed; q, k, v and gates joined or split; position rows of class and register tokens, which some
/// programs lack, filled with zeros. What the other program stores and never uses (hf's pooler) becomes "unused.*"; other
/// unknown names stay.
/// image_size: needed for ucf-vit with adaptive positions, whose coordinates are pixels; empty = not known.
/// throws CheckpointError when one of q, k, v is missing, when the model cannot be expressed, or image_size is needed.
Renamed import_names(const std::vector<nn::NamedTensor>& tensors, Naming from,
                     const std::vector<int64_t>& image_size = {});

/// From our names; the position rows that the program lacks are added to the tokens themselves, which is the same sum.
/// throws CheckpointError naming a tensor that the scheme has no name for.
Renamed export_names(const std::vector<nn::NamedTensor>& tensors, Naming to,
                     const std::vector<int64_t>& image_size = {});

}  // namespace vitrail::models
