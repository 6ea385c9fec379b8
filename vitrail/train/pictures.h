#pragma once
/// Model inputs and outputs as pictures for people.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"

namespace vitrail::train {

/// [C, H, W] or [C, D, H, W] in [0, 1] as PNG bytes: grey for one channel, RGB for three, else the
/// first channel; of a volume the middle slice. Values outside are clamped.
std::string png_bytes(const at::Tensor& image);

/// Undoes the source's normalisation: [C, ...] as the model saw it -> [0, 1].
at::Tensor denormalised(const at::Tensor& image, const config::Source& source);

/// What an MAE saw and said, each [C, ...] in [0, 1].
struct MaskedPictures {
  at::Tensor original, masked, reconstruction,
      pasted;  // pasted: visible patches of the original, predicted hidden ones
  std::vector<at::Tensor> all() const { return {original, masked, reconstruction, pasted}; }
};
/// image [C, ...] normalised, prediction [L, S], mask [L] with 1 = hidden. With norm_pix_loss the
/// prediction is put back on each patch's own mean and variance. Hidden patches of `masked` are
/// mid-grey.
MaskedPictures masked_pictures(const at::Tensor& image, const at::Tensor& prediction,
                               const at::Tensor& mask, const config::Model& model,
                               const config::Source& source);

}  // namespace vitrail::train
