#pragma once
/// From a decoded file to a model's input: channels, window, resize, augmentation, normalisation.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/augment_plan.h"
#include "vitrail/data/decoded.h"
#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// What goes with an image through every step; null = it has none.
struct Beside {
  const Pixels* values =
      nullptr;  // floats [sides..., V] of the file's sides: an image to be learnt
  const std::vector<LabelledBox>* boxes = nullptr;  // in pixels of the file
};

/// Where a sample goes, each part the start of its row in a batch; null = not wanted.
/// Shapes   S the staging sides; a source of smaller ones fills the start of the row densely.
struct Placed {
  float* image = nullptr;          // [C, S...]
  int64_t* mask = nullptr;         // [S...], -1 everywhere when the file has no mask
  float* values = nullptr;         // [V, S...], NaN outside the image
  float* boxes = nullptr;          // [max_boxes, 4]: x0, y0, x1, y1 in pixels of the staging image
  int64_t* box_classes = nullptr;  // [max_boxes]; -1 = no box
  int64_t max_boxes = 0;
  uint8_t* plan = nullptr;  // plan_bytes(); needed exactly when has_plan()
};

/// What happens to every sample of one source.
///
/// Order    channels, range of the whole file (source.normalize), window (narrow()), resize to
///          source.resize (default: model.image_size), the leading exact augment steps (training).
///          Without a plan then centre crop to model.image_size and (v - mean) / std with v the value
///          in that range. With a plan both are left to augmented() (augment_batch.h), after the
///          other steps of the list; the image is written in its staging size as v.
///          Padding and the zero pixels of crop, shift and affine are v = 0.
/// Masks    follow through window, resize (nearest pixel), augment steps and crop; padding is -1.
/// Values   follow as an image does (bilinear), neither ranged nor normalised; padding is NaN.
/// Boxes    follow window, resize, augment steps and crop, cut at the image's edges; one of which
///          less than a pixel is left along a side becomes class -1.
/// Threads  const and safe from many threads; runs on the calling thread alone.
class Transform {
 public:
  /// raw: no augmentation, no mean and std.
  /// throws   ConfigError: unknown augment step; a step that does not fit the model's sides, channels
  ///          or labels; resize with a wrong number of sides or smaller than the image size; mean or
  ///          std of a wrong length; std not above zero; percentile without its range; an unknown
  ///          variable.
  Transform(const config::Source& source, const config::Model& model, bool training, bool raw);

  /// C: the source's variables, or model.in_channels.
  int64_t channels() const { return channels_; }
  /// Floats per sample of model.image_size: C times its sides.
  int64_t values_per_sample() const;
  /// Classes per mask: the product of model.image_size.
  int64_t pixels_per_sample() const;

  /// True: the list has steps for the device, so that every source of the loader must have a plan.
  bool wants_plan() const;
  /// Slots that a row needs for them (0 for a list of only mixup, cutmix or erasing).
  int64_t plan_slots() const;
  /// Makes apply() write rows of `slots` slots, at least plan_slots(): the largest of all sources of
  /// the loader, called for each of them once one of them wants a plan.
  void use_plan(int64_t slots);
  bool has_plan() const { return slots_ >= 0; }
  /// Bytes of a row; equal for sources of equal channels and slots. 0 without a plan.
  int64_t plan_bytes() const;
  /// Sides in which apply() writes: model.image_size without a plan; with one it may be source.resize.
  /// A loader's batch has, per axis, the largest of its sources.
  std::vector<int64_t> staging_sides() const;

  /// The model's channels and the file's range; once per file.
  /// throws   DataError naming `path` when the channels do not fit.
  Decoded prepare(Pixels pixels, Mask mask, const std::string& path) const;

  /// The part of `window` that the sample is made of: less than all when the list starts with
  /// resized_crop. To be called once, before what is read is known; apply() takes its result.
  Window narrow(const Window& window, const AugmentPlace& place) const;

  /// Writes all that `out` asks for.
  void apply(const Decoded& file, const Beside& beside, const Window& window,
             const AugmentPlace& place, const Placed& out) const;
  /// The same of an image with at most a mask, without a plan. (Any use of a plan: the form above.)
  void apply(const Decoded& file, const Window& window, const AugmentPlace& place, float* image,
             int64_t* mask) const;
  /// The same for a whole image without a mask; narrows by itself. throws DataError naming `path`
  /// when channels or number of sides do not fit.
  void apply(Pixels pixels, const AugmentPlace& place, const std::string& path, float* out) const;

  /// apply() as one step after another in plain tensor operations, what it is tested against: image
  /// and mask. Without a plan.
  std::pair<at::Tensor, at::Tensor> apply_plain(const Decoded& file, const Window& window,
                                                const AugmentPlace& place) const;
  at::Tensor apply_plain(const Pixels& pixels, const AugmentPlace& place,
                         const std::string& path) const;

 private:
  /// What a sample is gathered from: the file itself, or the window resized.
  struct Staged {
    std::vector<AxisMap> axes;  // over all steps that are index maps
    bool is_as_stored;
  };
  Staged stage(const Window& window, const AugmentPlace& place) const;
  /// `pixels` whole; throws DataError when its sides do not fit.
  Window checked_window(const Pixels& pixels, const std::string& path) const;
  void place_image(const Decoded& file, const Window& window, const Staged& staged,
                   float* out) const;
  void place_mask(const Mask& mask, const Window& window, const Staged& staged, int64_t* out) const;
  void place_values(const Pixels& values, const Window& window, const Staged& staged,
                    float* out) const;
  void place_boxes(const std::vector<LabelledBox>& boxes, const Window& window,
                   const Staged& staged, const Placed& out) const;

  std::vector<int64_t> resize_, target_;
  int64_t channels_;
  RangeRule range_;
  std::vector<float> mean_, std_;  // per channel
  StepList steps_;
  int64_t slots_ = -1;  // -1 = no plan
};

}  // namespace vitrail::data
