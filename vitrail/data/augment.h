#pragma once
/// Training augmentations as index arithmetic: each step changes where along each axis a result
/// pixel comes from.
///
/// Every step of a recipe's `augment` list is a flip, a translation, a window or a swap of axes of
/// the image, so a list of steps is, per axis, one axis of the source, one affine index map and one
/// interval of pixels that are still inside the image. The map is applied once, in the pass that
/// also normalises, and to the mask alike.

#include <cstdint>
#include <string>
#include <vector>

namespace vitrail::data {

enum class AugmentKind { flip, flips, rot90, crop, shift };

/// flip         mirrors the last axis with probability 1/2.
/// flips        mirrors every axis with probability 1/2 each.
/// rot90        swaps the last two axes with probability 1/2; with flips, all 8 quarter turns and
///              mirror images. Needs equal sides.
/// crop:PAD     pads every side with PAD zero pixels and cuts a window of the model's image size at
///              a uniform place.
/// shift:PIXELS moves the image by a uniform integer of [-PIXELS, PIXELS] along each axis; zero
///              pixels move in.
struct AugmentStep {
  AugmentKind kind;
  int64_t amount = 0;  // PAD or PIXELS
};

/// throws   ConfigError for an unknown step or a missing, negative or too large number; names the
///          source.
std::vector<AugmentStep> parse_augment(const std::vector<std::string>& steps,
                                       const std::string& source);

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

/// What a step draws for a sample: flip and rot90 {0 or 1}; flips 0 or 1 per axis; crop and shift the
/// window's offset per axis.
/// `sides` is the size before the step, `target` the model's image size.
std::vector<int64_t> draw_step(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                               const std::vector<int64_t>& sides,
                               const std::vector<int64_t>& target);

/// throws   ConfigError unless the sides of an image that starts with `sides` fit every step (rot90).
void check_augment(const std::vector<AugmentStep>& steps, std::vector<int64_t> sides,
                   const std::vector<int64_t>& target, const std::string& source);

/// Applies all steps to maps that start as identities of the image's sides.
void augment(std::vector<AxisMap>& axes, const std::vector<AugmentStep>& steps,
             const AugmentPlace& place, const std::vector<int64_t>& target);

/// Cuts the middle window of the model's image size; no-op when the sizes agree. An odd rest is
/// larger at the end.
void center_crop(std::vector<AxisMap>& axes, const std::vector<int64_t>& target);

}  // namespace vitrail::data
