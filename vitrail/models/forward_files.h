#pragma once
/// One numeric pass from a file to a file, for comparison with other programs (`vitrail forward`).

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"

namespace vitrail::models {

struct ForwardFiles {
  std::string weights;  // empty = fresh initialisation from run.seed
  std::string from = "auto";
  std::string input;
  std::string output;
  std::vector<std::string> taps;
  bool backward = false;
  bool train = false;  // dropouts and drop-path draw from run.seed, step 0, sample ids 0 ... B-1
};

/// Input: image fp32 [B, C, ...]; for models with leaves leaf_tokens fp32 [B, C, L, P^k] and leaf_boxes fp32 [B, L, 2k] in
/// its place or beside it (without them they are made of the image, and no gradient passes through them); pixel_range
/// fp32 [B, C, 2]; label int64 [B], or [B, sides...] for masks; boxes fp32 [B, M, 4] (corners in pixels) and classes
/// int64 [B, M], -1 = none (detection); mask_noise fp32 [B, L] (mae); timestep int64 [B] and noise
/// fp32 like image (diffusion); variable_ids int64 [V]: which of model.variables the channels are, all in order when
/// absent.
/// Output, all fp32: output; loss; mask (mae); boxes [B, Q, 4] (detection); tap/NAME; with backward grad/PARAMETER for every parameter and grad/image
/// or grad/leaf_tokens (or both), whichever were given.
/// throws DataError naming file and tensor for an unusable input, CheckpointError for unusable weights.
void forward_files(const config::Recipe& recipe, const ForwardFiles& files, at::Device device,
                   at::ScalarType dtype);

}  // namespace vitrail::models
