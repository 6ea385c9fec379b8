#pragma once
/// From a decoded sample to the model's input: channels, resize, augmentation, normalisation.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// What happens to every sample of one source.
///
/// Order    channels, resize to source.resize (default: model.image_size), augment steps
///          (training), centre crop to model.image_size, (value - mean) / std. Zero pixels of crop
///          and shift are zero before normalisation.
/// Threads  const and safe from many threads; runs on the calling thread alone.
class Transform {
 public:
  /// raw: no augmentation and no normalisation, values in [0, 1].
  /// throws   ConfigError: unknown augment step; resize with a wrong number of sides or smaller
  ///          than the image size; mean or std of a wrong length; std not above zero.
  Transform(const config::Source& source, const config::Model& model, bool training, bool raw);

  /// Floats per sample: C times the sides of model.image_size.
  int64_t values_per_sample() const;
  /// Writes float [C, sides...] to `out`. throws DataError naming `path` when channels or number of
  /// sides do not fit.
  void apply(Pixels pixels, const AugmentPlace& place, const std::string& path, float* out) const;
  /// The same, one step after another in plain tensor operations; what apply() is tested against.
  at::Tensor apply_plain(const Pixels& pixels, const AugmentPlace& place,
                         const std::string& path) const;

 private:
  Pixels checked(Pixels pixels, const std::string& path) const;

  std::vector<int64_t> resize_, target_;
  int64_t channels_;
  std::vector<float> mean_, std_;  // per channel
  std::vector<AugmentStep> steps_;
};

}  // namespace vitrail::data
