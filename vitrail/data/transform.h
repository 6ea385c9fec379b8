#pragma once
/// From a decoded file to a model's input: channels, window, resize, augmentation, normalisation.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/decoded.h"
#include "vitrail/data/pixels.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// What happens to every sample of one source.
///
/// Order    channels, range of the whole file (source.normalize), window, resize to source.resize
///          (default: model.image_size), augment steps (training), centre crop to model.image_size,
///          (v - mean) / std with v the value in that range. Padding and the zero pixels of crop and
///          shift are v = 0.
/// Masks    follow through window, resize (nearest pixel), augment steps and crop; padding is -1.
/// Threads  const and safe from many threads; runs on the calling thread alone.
class Transform {
 public:
  /// raw: no augmentation, no mean and std.
  /// throws   ConfigError: unknown augment step; rot90 of unequal sides; resize with a wrong number
  ///          of sides or smaller than the image size; mean or std of a wrong length; std not above
  ///          zero; percentile without its range; an unknown variable.
  Transform(const config::Source& source, const config::Model& model, bool training, bool raw);

  /// C: the source's variables, or model.in_channels.
  int64_t channels() const { return channels_; }
  /// Floats per sample: C times the sides of model.image_size.
  int64_t values_per_sample() const;
  /// Classes per mask: the product of model.image_size.
  int64_t pixels_per_sample() const;

  /// The model's channels and the file's range; once per file.
  /// throws   DataError naming `path` when the channels do not fit.
  Decoded prepare(Pixels pixels, Mask mask, const std::string& path) const;

  /// Writes float [C, sides...] to `image` and, unless `mask` is null, classes [sides...] to it (-1
  /// everywhere when the file has no mask).
  void apply(const Decoded& file, const Window& window, const AugmentPlace& place, float* image,
             int64_t* mask) const;
  /// The same for a whole image without a mask. throws DataError naming `path` when channels or
  /// number of sides do not fit.
  void apply(Pixels pixels, const AugmentPlace& place, const std::string& path, float* out) const;

  /// apply() as one step after another in plain tensor operations, what it is tested against: image
  /// and mask.
  std::pair<at::Tensor, at::Tensor> apply_plain(const Decoded& file, const Window& window,
                                                const AugmentPlace& place) const;
  at::Tensor apply_plain(const Pixels& pixels, const AugmentPlace& place,
                         const std::string& path) const;

 private:
  /// `pixels` whole; throws DataError when its sides do not fit.
  Window checked_window(const Pixels& pixels, const std::string& path) const;

  std::vector<int64_t> resize_, target_;
  int64_t channels_;
  RangeRule range_;
  std::vector<float> mean_, std_;  // per channel
  std::vector<AugmentStep> steps_;
};

}  // namespace vitrail::data
