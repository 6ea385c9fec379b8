#include "vitrail/config/recipe.h"

namespace vitrail::config {

int64_t Model::num_patches() const {
  int64_t patches = 1;
  for (const int64_t side : image_size) patches *= side / patch_size;
  return patches;
}

int64_t Model::num_leaves() const {
  if (mixed_resolution.num_tokens > 0) return mixed_resolution.num_tokens;
  return adaptive.fixed_length * (adaptive.trees == "per_channel" ? in_channels : 1);
}

int64_t Model::patch_values() const {
  int64_t values = in_channels;
  for (size_t axis = 0; axis < image_size.size(); ++axis) values *= patch_size;
  return values;
}

}  // namespace vitrail::config
