#pragma once
/// Training augmentations as index arithmetic: each step changes where along each axis a result
/// pixel comes from.
///
/// Flips, translations, windows and turns by 90 degrees are, per axis of the result, one axis of the
/// source, one affine index map and one interval of pixels that are still inside the image. The maps
/// of a whole list are applied once, in the pass that also normalises, and to the mask alike. A list
/// of steps starts with any number of these; from the first other one on, steps are carried out by
/// augmented() after a plan (augment_plan.h).

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/augment_steps.h"
#include "vitrail/config/recipe.h"

namespace vitrail::data {

using config::AugmentKind;
/// docs/augment.md lists the kinds and their numbers. Of the exact ones:
///
/// flip         mirrors the last axis with probability 1/2.
/// flips        mirrors every axis with probability 1/2 each.
/// rot90        swaps the last two axes with probability 1/2; with flips, all 8 quarter turns and
///              mirror images. Needs equal sides.
/// rot90_3d     one of the 24 rotations of a cube, each equally likely.
/// crop:PAD     pads every side with PAD zero pixels and cuts a window of the model's image size at
///              a uniform place.
/// shift:PIXELS moves the image by a uniform integer of [-PIXELS, PIXELS] along each axis; zero
///              pixels move in.
using config::AugmentStep;

/// A source's list by where its steps are carried out; a step's layer is its place in the list.
struct StepList {
  std::vector<AugmentStep> steps;
  size_t first_exact = 0;  // 1 when the list starts with resized_crop, which Transform::narrow does
  size_t first_device = 0;  // steps [first_exact, first_device) are index maps of the copying pass

  bool has_window() const { return first_exact == 1; }
  bool needs_device() const { return first_device < steps.size(); }
};

/// throws   ConfigError for an unknown step or a missing or bad number; names the source.
StepList parse_augment(const std::vector<std::string>& steps, const std::string& source);

/// throws   ConfigError unless the steps make sense as a list for this use; names the source.
void check_augment(const StepList& list, const config::AugmentUse& use,
                   const std::vector<std::string>& texts, const std::string& source);

/// One axis: result pixel p comes from pixel start + step * p of the source's axis `axis` when low <=
/// p < high, else it is zero.
struct AxisMap {
  int64_t size = 0;
  int64_t start = 0;
  int64_t step = 1;
  int64_t low = 0, high = 0;
  size_t axis = 0;

  static AxisMap identity(int64_t size, size_t axis) { return {size, 0, 1, 0, size, axis}; }
  AxisMap mirrored() const;
  /// Result pixel p is this map's pixel p + offset; offset may be negative and the window may reach
  /// past the end.
  AxisMap window(int64_t offset, int64_t window_size) const;
};

/// The place of a sample's draws; layer is the position of the step in the list.
struct AugmentPlace {
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t index = 0;  // global sample index
};

/// What an exact step draws for a sample: flip and rot90 {0 or 1}; flips 0 or 1 per axis; rot90_3d {0
/// to 23}; crop and shift the window's offset per axis.
/// `sides` is the size before the step, `target` the model's image size.
std::vector<int64_t> draw_step(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                               const std::vector<int64_t>& sides,
                               const std::vector<int64_t>& target);

/// Applies one exact step as drawn.
void apply_step(std::vector<AxisMap>& axes, const AugmentStep& step,
                const std::vector<int64_t>& drawn, const std::vector<int64_t>& target);

/// Applies the exact steps of the list's host part to maps that start as identities of the image's
/// sides.
void augment(std::vector<AxisMap>& axes, const StepList& list, const AugmentPlace& place,
             const std::vector<int64_t>& target);

/// Cuts the middle window of the model's image size; no-op when the sizes agree. An odd rest is
/// larger at the end.
void center_crop(std::vector<AxisMap>& axes, const std::vector<int64_t>& target);

/// A window of an image, one entry per axis.
struct CropBox {
  std::vector<int64_t> origin, sides;
};
/// The window of resized_crop: as torchvision's RandomResizedCrop for 2 sides. For 3 sides a share of
/// the volume, each side by the cube root of it times a log-uniform ratio, the ratios' product
/// being 1. Ten tries, then the whole image (2 sides: the largest central window of a permitted ratio).
CropBox draw_resized_crop(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                          const std::vector<int64_t>& sides);

}  // namespace vitrail::data
