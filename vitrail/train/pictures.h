#pragma once
/// Model inputs and outputs as pictures for people.

#include <array>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"

namespace vitrail::train {

/// [C, H, W] or [C, D, H, W] in [0, 1] as PNG bytes: grey for one channel, RGB for three, else the
/// first channel; of a volume the middle slice. Values outside are clamped.
std::string png_bytes(const at::Tensor& image);

/// Undoes the source's mean and std: [C, ...] as the model saw it -> [0, 1], or with normalize: none the
/// file's values.
at::Tensor denormalised(const at::Tensor& image, const config::Source& source);

/// The original undone as above and, with normalize: none, its least value put to 0 and its largest to
/// 1: what a picture of it shows. Other tensors of the same sample go with it.
class Display {
 public:
  Display(const at::Tensor& image, const config::Source& source);
  at::Tensor operator()(const at::Tensor& image) const;

 private:
  const config::Source& source_;
  at::Tensor low_, span_;  // undefined: values are in [0, 1]
};

/// What an MAE saw and said, each [C, ...] in [0, 1].
struct MaskedPictures {
  at::Tensor original, masked, reconstruction,
      pasted;  // pasted: visible patches of the original, predicted hidden ones
  std::vector<at::Tensor> all() const { return {original, masked, reconstruction, pasted}; }
};
/// Leaves of one sample as a batch holds them; undefined = a grid of patches.
struct Leaves {
  at::Tensor tokens;  // [C, L, P^k]
  at::Tensor boxes;   // [L, 2k]
  bool defined() const { return tokens.defined(); }
};

/// image [C, ...] normalised, prediction [L, S], mask [L] with 1 = hidden. With norm_pix_loss the
/// prediction is put back on each patch's own mean and variance. Hidden patches of `masked` are
/// mid-grey. Predictions of leaves are pasted to their boxes, whose borders `masked` shows.
MaskedPictures masked_pictures(const at::Tensor& image, const at::Tensor& prediction,
                               const at::Tensor& mask, const config::Model& model,
                               const config::Source& source, const Leaves& leaves = {});

/// A segmentation, each RGB [3, ...] in [0, 1]: the image, the same with the true classes coloured,
/// with the predicted ones, and with the pixels marked where they differ.
struct MaskPictures {
  at::Tensor image, truth, predicted, errors;
  std::vector<at::Tensor> all() const { return {image, truth, predicted, errors}; }
};
/// image [C, ...] normalised; truth and predicted int64 [...]. Class 0 and pixels without a label
/// (-1) stay uncoloured; pixels without a label never differ. `image` shows the borders of leaves.
MaskPictures mask_pictures(const at::Tensor& image, const at::Tensor& truth,
                           const at::Tensor& predicted, const config::Source& source,
                           const Leaves& leaves = {});

/// The colour of class k >= 0 of the palette that pictures share, [3] in [0, 1], and its name.
struct ClassColor {
  const char* name;
  double rgb[3];
};
const ClassColor& class_color(int64_t k);
/// Grey or RGB [3, ...] of an image of any number of channels.
at::Tensor as_rgb(const at::Tensor& image);

/// A box to draw: x0, y0, x1, y1 in pixels.
struct DrawnBox {
  std::array<double, 4> corners{};
  int64_t label = 0;
};
/// RGB [3, H, W] with the outlines of boxes in the colours of their classes, drawn inside the image.
at::Tensor with_boxes(const at::Tensor& rgb, const std::vector<DrawnBox>& boxes);

/// Slices of a volume [C, D, H, W] -> [C, H, W] each, spread over its depth; an image is its own
/// only slice.
std::vector<at::Tensor> depth_slices(const at::Tensor& image, int64_t count);

}  // namespace vitrail::train
