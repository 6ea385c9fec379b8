#pragma once
/// Weights of a model of another size, made to fit: positions resampled, patches inflated and resized, channels summed or
/// repeated, a head of other classes left out. Every change is a note.
///
/// Paper    position tables: Dosovitskiy et al. 2021, arXiv:2010.11929; patch sizes: Beyer et al. 2023, arXiv:2212.08013
///          (FlexiViT); equal to timm's resample_abs_pos_embed, resample_patch_embed and adapt_input_conv.
/// Shapes   D width, C channels, P patch edge, L patches of a grid.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/model.h"
#include "vitrail/nn/module.h"

namespace vitrail::models {

/// rows [L, D] of the patches of one grid -> rows of another: 2-D bicubic with antialiasing, 3-D trilinear, corners not
/// aligned; from 2-D to 3-D every depth gets the 2-D table.
at::Tensor resample_positions(const at::Tensor& rows, const std::vector<int64_t>& from,
                              const std::vector<int64_t>& to);

/// weight [D, C, P, P(, P)] -> patch edge `edge`: the weights whose tokens of an enlarged patch are those of the patch,
/// W pinv(R) with R the bicubic resize, axis by axis (its 2-D and 3-D matrices are products).
at::Tensor resize_patch(const at::Tensor& weight, int64_t edge);

/// weight [D, C, P, P] -> [D, C, depth, P, P], repeated and divided by depth: a volume constant along depth gets the
/// tokens of its slice.
at::Tensor inflate_patch(const at::Tensor& weight, int64_t depth);

/// weight [D, C, ...] -> [D, channels, ...]: the sum for one channel, else repeated in order and scaled by C / channels,
/// so that an image of equal channels keeps its tokens.
at::Tensor change_channels(const at::Tensor& weight, int64_t channels);

/// What a model wants. Names are the model's.
struct Wanted {
  std::map<std::string, at::Tensor> parameters, fixed;
  std::vector<int64_t> grid;  // patches along each axis; empty = not known
};
Wanted wanted_of(Model& model, const std::vector<int64_t>& grid);

struct Adapted {
  std::vector<nn::NamedTensor> tensors;
  std::vector<std::pair<std::string, std::string>> notes;  // (tensor, what was done)
  std::set<std::string>
      fresh;  // parameters of the model that keep their initial values with reason
};

/// Other writings of the same function only: a position table without rows for class and register tokens (timm's
/// no_embed_class), a linear patch embedding over (p, q, ..., channel).
Adapted fit(std::vector<nn::NamedTensor> tensors, const Wanted& wanted);

/// fit, then all that the functions above do, and:
/// fixed sin-cos tables of another grid are left out, the model keeps its own; head and output convolution of other
/// classes are left out; class and register tokens that only one side has are left out, or start fresh; a patch embedding
/// of mixed channels becomes that of every variable, summed over channels. A 3-D model is not made 2-D. What still does
/// not fit is for the loader to report.
Adapted adapt(std::vector<nn::NamedTensor> tensors, const Wanted& wanted);

}  // namespace vitrail::models
