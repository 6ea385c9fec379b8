#pragma once
/// Masks, or real values, of whole images and volumes from a model of pixels.

#include <cstdint>
#include <string>

#include "vitrail/comm/communicator.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"

namespace vitrail::train {

/// Segments everything that `input` names (for the reader of the recipe's source: files, a folder or
/// a glob) by sliding windows (train/sliding_window.h; the overlap is the source's, else one half)
/// at the scale that the model knows: with source.tile or random_crop that of these windows, else the
/// whole file resized to source.resize (default model.image_size), whose probabilities are resized
/// back. Writes class numbers, or source.label_values where those fit a byte, with the sides of the
/// input:
///   images        OUTPUT/NNNNN-NAME.png
///   image_stack   OUTPUT/NNNNN-NAME/NNNN.png, one a slice
///   nifti         OUTPUT/NNNNN-NAME.nii.gz in the space of the input
///   npy, raw, tiff, zarr, n5   OUTPUT/NNNNN-NAME.zarr (zarr v3, gzip)
/// A model of real values writes these: a NIfTI file for a NIfTI input and one value a pixel, else
/// OUTPUT/NNNNN-NAME.zarr [V, sides...].
/// A 2-D model segments volumes slice by slice across source.slices (default 0).
/// Returns the number of images or volumes, of which each rank of `world` does every R-th; every rank calls it.
/// Errors   DataError naming a file that cannot be read; ConfigError when the model has another
///          number of sides than the files, or more classes than a byte holds.
int64_t predict_masks(models::Model& model, const config::Recipe& recipe,
                      const config::Source& source, comm::Communicator& world,
                      const std::string& input, const std::string& output, at::Device device);

}  // namespace vitrail::train
