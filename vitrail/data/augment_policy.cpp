// RandAugment (Cubuk et al. 2020, arXiv:1909.13719), TrivialAugment (Mueller & Hutter 2021,
// arXiv:2103.10158) and AutoAugment (Cubuk et al. 2019, arXiv:1805.09501) as torchvision has them:
// the same operations, magnitudes and policies, pixels of affine operations by the nearest one.

#include <algorithm>
#include <cmath>

#include "vitrail/data/augment_draws.h"
#include "vitrail/data/augment_slots.h"

namespace vitrail::data {
namespace {

using kernels::AugmentOp;

enum class Op {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  autocontrast,
  equalize,
  invert
};
constexpr int64_t kOps = 14;  // all but invert, which AutoAugment alone has

/// The largest magnitude of each operation.
struct Space {
  double shear, translate_x, translate_y, rotate, enhance;
  double posterize;  // bits taken away at most
  int64_t bins;
};

Space usual_space(int64_t bins, const std::vector<int64_t>& sides) {
  const auto height = static_cast<double>(sides[0]), width = static_cast<double>(sides[1]);
  return {0.3, 150.0 / 331.0 * width, 150.0 / 331.0 * height, 30, 0.9, 4, bins};
}
constexpr Space kWideSpace{0.99, 32, 32, 135, 0.99, 6, 31};

bool is_signed(Op op) { return op >= Op::shear_x && op <= Op::sharpness; }

double magnitude_of(Op op, int64_t bin, const Space& space) {
  const double share = static_cast<double>(bin) / static_cast<double>(space.bins - 1);
  switch (op) {
    case Op::shear_x:
    case Op::shear_y:
      return share * space.shear;
    case Op::translate_x:
      return share * space.translate_x;
    case Op::translate_y:
      return share * space.translate_y;
    case Op::rotate:
      return share * space.rotate;
    case Op::brightness:
    case Op::color:
    case Op::contrast:
    case Op::sharpness:
      return share * space.enhance;
    case Op::posterize:
      return 8 - std::nearbyint(share * space.posterize);
    case Op::solarize:
      return 255 * (1 - share);
    default:
      return 0;
  }
}

/// Sheared from the image's upper left corner; moved by whole pixels.
void add_move(Op op, double magnitude, SlotWriter& slots) {
  constexpr bool kNearest = true;
  const std::array<double, 2> corner{-0.5 * static_cast<double>(slots.sides()[1]),
                                     -0.5 * static_cast<double>(slots.sides()[0])};
  const double degrees = std::atan(magnitude) * 180.0 / 3.14159265358979323846;
  // The nudge keeps 16.0 whole where a product fell short of it.
  const double pixels = std::trunc(magnitude + std::copysign(1e-5, magnitude));
  switch (op) {
    case Op::shear_x:
      return slots.affine(inverse_affine(0, {0, 0}, 1, {degrees, 0}, corner), kNearest);
    case Op::shear_y:
      return slots.affine(inverse_affine(0, {0, 0}, 1, {0, degrees}, corner), kNearest);
    case Op::translate_x:
      return slots.affine(inverse_affine(0, {pixels, 0}, 1, {0, 0}), kNearest);
    case Op::translate_y:
      return slots.affine(inverse_affine(0, {0, pixels}, 1, {0, 0}), kNearest);
    default:  // rotate is counter-clockwise
      return slots.affine(inverse_affine(-magnitude, {0, 0}, 1, {0, 0}), kNearest);
  }
}

void add_op(Op op, double magnitude, SlotWriter& slots) {
  switch (op) {
    case Op::identity:
      return;
    case Op::shear_x:
    case Op::shear_y:
    case Op::translate_x:
    case Op::translate_y:
    case Op::rotate:
      if (magnitude != 0) add_move(op, magnitude, slots);
      return;
    case Op::brightness:
      return slots.add(AugmentOp::brightness, 1 + magnitude);
    case Op::color:
      return slots.add(AugmentOp::saturation, 1 + magnitude);
    case Op::contrast:
      return slots.add(AugmentOp::contrast, 1 + magnitude);
    case Op::sharpness:
      return slots.add(AugmentOp::sharpness, 1 + magnitude);
    case Op::posterize:
      return slots.posterize(static_cast<int32_t>(magnitude));
    case Op::solarize:
      return slots.add(AugmentOp::solarize, magnitude);
    case Op::autocontrast:
      return slots.add(AugmentOp::autocontrast);
    case Op::equalize:
      return slots.add(AugmentOp::equalize);
    case Op::invert:
      return slots.add(AugmentOp::invert);
  }
}

struct PolicyOp {
  Op op;
  double probability;
  int64_t bin = 0;
};
struct SubPolicy {
  PolicyOp first, second;
};
constexpr int64_t kPolicies = 25;

constexpr SubPolicy kImageNet[kPolicies] = {
    {{Op::posterize, 0.4, 8}, {Op::rotate, 0.6, 9}},
    {{Op::solarize, 0.6, 5}, {Op::autocontrast, 0.6}},
    {{Op::equalize, 0.8}, {Op::equalize, 0.6}},
    {{Op::posterize, 0.6, 7}, {Op::posterize, 0.6, 6}},
    {{Op::equalize, 0.4}, {Op::solarize, 0.2, 4}},
    {{Op::equalize, 0.4}, {Op::rotate, 0.8, 8}},
    {{Op::solarize, 0.6, 3}, {Op::equalize, 0.6}},
    {{Op::posterize, 0.8, 5}, {Op::equalize, 1.0}},
    {{Op::rotate, 0.2, 3}, {Op::solarize, 0.6, 8}},
    {{Op::equalize, 0.6}, {Op::posterize, 0.4, 6}},
    {{Op::rotate, 0.8, 8}, {Op::color, 0.4, 0}},
    {{Op::rotate, 0.4, 9}, {Op::equalize, 0.6}},
    {{Op::equalize, 0.0}, {Op::equalize, 0.8}},
    {{Op::invert, 0.6}, {Op::equalize, 1.0}},
    {{Op::color, 0.6, 4}, {Op::contrast, 1.0, 8}},
    {{Op::rotate, 0.8, 8}, {Op::color, 1.0, 2}},
    {{Op::color, 0.8, 8}, {Op::solarize, 0.8, 7}},
    {{Op::sharpness, 0.4, 7}, {Op::invert, 0.6}},
    {{Op::shear_x, 0.6, 5}, {Op::equalize, 1.0}},
    {{Op::color, 0.4, 0}, {Op::equalize, 0.6}},
    {{Op::equalize, 0.4}, {Op::solarize, 0.2, 4}},
    {{Op::solarize, 0.6, 5}, {Op::autocontrast, 0.6}},
    {{Op::invert, 0.6}, {Op::equalize, 1.0}},
    {{Op::color, 0.6, 4}, {Op::contrast, 1.0, 8}},
    {{Op::equalize, 0.8}, {Op::equalize, 0.6}},
};

constexpr SubPolicy kCifar10[kPolicies] = {
    {{Op::invert, 0.1}, {Op::contrast, 0.2, 6}},
    {{Op::rotate, 0.7, 2}, {Op::translate_x, 0.3, 9}},
    {{Op::sharpness, 0.8, 1}, {Op::sharpness, 0.9, 3}},
    {{Op::shear_y, 0.5, 8}, {Op::translate_y, 0.7, 9}},
    {{Op::autocontrast, 0.5}, {Op::equalize, 0.9}},
    {{Op::shear_y, 0.2, 7}, {Op::posterize, 0.3, 7}},
    {{Op::color, 0.4, 3}, {Op::brightness, 0.6, 7}},
    {{Op::sharpness, 0.3, 9}, {Op::brightness, 0.7, 9}},
    {{Op::equalize, 0.6}, {Op::equalize, 0.5}},
    {{Op::contrast, 0.6, 7}, {Op::sharpness, 0.6, 5}},
    {{Op::color, 0.7, 7}, {Op::translate_x, 0.5, 8}},
    {{Op::equalize, 0.3}, {Op::autocontrast, 0.4}},
    {{Op::translate_y, 0.4, 3}, {Op::sharpness, 0.2, 6}},
    {{Op::brightness, 0.9, 6}, {Op::color, 0.2, 8}},
    {{Op::solarize, 0.5, 2}, {Op::invert, 0.0}},
    {{Op::equalize, 0.2}, {Op::autocontrast, 0.6}},
    {{Op::equalize, 0.2}, {Op::equalize, 0.6}},
    {{Op::color, 0.9, 9}, {Op::equalize, 0.6}},
    {{Op::autocontrast, 0.8}, {Op::solarize, 0.2, 8}},
    {{Op::brightness, 0.1, 3}, {Op::color, 0.7, 0}},
    {{Op::solarize, 0.4, 5}, {Op::autocontrast, 0.9}},
    {{Op::translate_y, 0.9, 9}, {Op::translate_y, 0.7, 9}},
    {{Op::autocontrast, 0.9}, {Op::solarize, 0.8, 3}},
    {{Op::equalize, 0.8}, {Op::invert, 0.1}},
    {{Op::translate_y, 0.7, 9}, {Op::autocontrast, 0.9}},
};

double with_sign(Op op, double magnitude, bool is_negative) {
  return is_signed(op) && is_negative ? -magnitude : magnitude;
}

/// Always the same number of draws, so that what is drawn later does not depend on it.
void add_autoaugment(const AugmentStep& step, PlanDraws& draws, SlotWriter& slots) {
  const SubPolicy& policy = (step.word == "cifar10" ? kCifar10 : kImageNet)[draws.below(kPolicies)];
  const Space space = usual_space(10, slots.sides());
  for (const PolicyOp& chosen : {policy.first, policy.second}) {
    const bool is_done = draws.uniform() < chosen.probability;
    const bool is_negative = draws.below(2) == 0;
    if (is_done)
      add_op(chosen.op,
             with_sign(chosen.op, magnitude_of(chosen.op, chosen.bin, space), is_negative), slots);
  }
}

}  // namespace

void add_policy(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                SlotWriter& slots) {
  PlanDraws draws(core::Stream::augment, layer, place);
  if (step.kind == AugmentKind::autoaugment) return add_autoaugment(step, draws, slots);
  const bool is_rand = step.kind == AugmentKind::randaugment;
  const Space space = is_rand ? usual_space(31, slots.sides()) : kWideSpace;
  const int64_t times = is_rand ? static_cast<int64_t>(step.numbers[0]) : 1;
  for (int64_t i = 0; i < times; ++i) {
    const Op op = static_cast<Op>(draws.below(kOps));
    const bool is_negative = draws.below(2) == 1;
    const int64_t bin =
        is_rand ? static_cast<int64_t>(step.numbers[1]) : draws.below(kWideSpace.bins);
    add_op(op, with_sign(op, magnitude_of(op, bin, space), is_negative), slots);
  }
}

}  // namespace vitrail::data
