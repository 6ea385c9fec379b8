#pragma once
/// The steps of a source's `augment` list: names, numbers, ranges, and what a list of them may be.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::config {

enum class AugmentKind {
  flip,
  flips,
  rot90,
  rot90_3d,
  crop,
  shift,
  resized_crop,
  affine,
  color_jitter,
  gray,
  solarize,
  blur,
  randaugment,
  trivialaugment,
  autoaugment,
  intensity,
  gamma,
  noise,
  erasing,
  mixup,
  cutmix
};

/// One entry of the list, `NAME:NUMBER:...` or `NAME:WORD`. Numbers that were left out have their
/// defaults; docs/augment.md says what each means.
struct AugmentStep {
  AugmentKind kind = AugmentKind::flip;
  std::vector<double> numbers = {};
  std::string word = {};

  /// PAD of crop, PIXELS of shift.
  int64_t amount() const { return numbers.empty() ? 0 : static_cast<int64_t>(numbers[0]); }
};

struct ParsedAugmentStep {
  AugmentStep step;
  std::string problem;  // empty = good; else what is wrong, to follow "augment step 'TEXT' "
};
ParsedAugmentStep parse_augment_step(std::string_view text);

/// What a list is for; what the rules of a list need to know of a source and its model.
struct AugmentUse {
  std::vector<int64_t> start_sides;   // source.resize, or model.image_size
  std::vector<int64_t> target_sides;  // model.image_size
  int64_t channels = 3;
  bool has_masks = false;      // a class per pixel is learnt
  bool has_unit_range = true;  // source.normalize is not none
  bool has_boxes = false;      // boxes are learnt
};

struct AugmentProblem {
  size_t step = 0;   // in the list
  std::string text;  // to follow "augment step 'TEXT' "
};
/// What is wrong with the steps as a list, first of all problems per step: erasing, mixup and cutmix
/// not last or twice; a step that does not fit the sides, channels, range or labels.
std::vector<AugmentProblem> check_augment_list(const std::vector<AugmentStep>& steps,
                                               const AugmentUse& use);

/// True for steps that are index maps: done while a sample is copied, as long as nothing else comes
/// before them.
bool is_exact(AugmentKind kind);
/// True for the steps that are done to the finished image: erasing, mixup, cutmix.
bool is_final(AugmentKind kind);
const char* name_of(AugmentKind kind);
/// True when the list has mixup or cutmix, which make one sample of two.
bool mixes_pairs(const std::vector<std::string>& steps);

}  // namespace vitrail::config
