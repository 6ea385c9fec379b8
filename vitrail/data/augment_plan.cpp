#include "vitrail/data/augment_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "vitrail/data/augment_draws.h"
#include "vitrail/data/augment_slots.h"
#include "vitrail/data/pixels.h"
#include "vitrail/kernels/augment.h"

namespace vitrail::data {
namespace {

using kernels::AugmentHeader;
using kernels::AugmentMix;
using kernels::AugmentOp;
using kernels::AugmentSlot;

void add_exact(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
               const std::vector<int64_t>& target, SlotWriter& slots) {
  std::vector<AxisMap> axes;
  for (size_t axis = 0; axis < slots.sides().size(); ++axis)
    axes.push_back(AxisMap::identity(slots.sides()[axis], axis));
  apply_step(axes, step, draw_step(step, layer, place, slots.sides(), target), target);
  slots.gather(axes);
}

void add_affine(const AugmentStep& step, PlanDraws& draws, SlotWriter& slots) {
  const std::vector<double>& n = step.numbers;
  const std::vector<int64_t>& sides = slots.sides();
  const auto turn = [&] { return draws.uniform(-n[0], n[0]); };
  const auto move = [&](size_t axis) {
    const double most = n[1] * static_cast<double>(sides[axis]);
    return std::nearbyint(draws.uniform(-most, most));
  };
  if (sides.size() == 2) {
    const double degrees = turn(), x = move(1), y = move(0), scale = draws.uniform(n[2], n[3]);
    const double shear = draws.uniform(-n[4], n[4]);
    return slots.affine(inverse_affine(degrees, {x, y}, scale, {shear, 0}), /*nearest=*/false);
  }
  const double about_z = turn(), about_y = turn(), about_x = turn();
  const double z = move(0), y = move(1), x = move(2), scale = draws.uniform(n[2], n[3]);
  const double shear = draws.uniform(-n[4], n[4]);
  slots.affine(inverse_affine({about_z, about_y, about_x}, {z, y, x}, scale, shear), false);
}

void add_color_jitter(const AugmentStep& step, PlanDraws& draws, SlotWriter& slots) {
  constexpr AugmentOp kOps[4] = {AugmentOp::brightness, AugmentOp::contrast, AugmentOp::saturation,
                                 AugmentOp::hue};
  size_t order[4] = {0, 1, 2, 3};
  for (int64_t i = 3; i > 0; --i) std::swap(order[i], order[draws.below(i + 1)]);
  double amount[4];
  for (size_t k = 0; k < 4; ++k) {
    const double strength = step.numbers[k];
    amount[k] = k == 3 ? draws.uniform(-strength, strength)
                       : draws.uniform(std::max(0.0, 1 - strength), 1 + strength);
  }
  for (const size_t k : order)
    if (step.numbers[k] > 0) slots.add(kOps[k], amount[k]);
}

void add_blur(const AugmentStep& step, PlanDraws& draws, SlotWriter& slots) {
  const double sigma = draws.uniform(0.1, step.numbers[0]);
  if (draws.uniform() >= step.numbers[1]) return;
  for (size_t axis = 0; axis < slots.sides().size(); ++axis)
    slots.blur(static_cast<int32_t>(axis), sigma);
}

void add_step(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
              const std::vector<int64_t>& target, SlotWriter& slots) {
  PlanDraws draws(core::Stream::augment, layer, place);
  const std::vector<double>& n = step.numbers;
  switch (step.kind) {
    case AugmentKind::resized_crop:
      return slots.window(draw_resized_crop(step, layer, place, slots.sides()), target);
    case AugmentKind::affine:
      return add_affine(step, draws, slots);
    case AugmentKind::color_jitter:
      return add_color_jitter(step, draws, slots);
    case AugmentKind::gray:
      if (draws.uniform() < n[0]) slots.add(AugmentOp::gray);
      return;
    case AugmentKind::solarize:
      if (draws.uniform() < n[0]) slots.add(AugmentOp::solarize, 255 * n[1]);
      return;
    case AugmentKind::blur:
      return add_blur(step, draws, slots);
    case AugmentKind::randaugment:
    case AugmentKind::trivialaugment:
    case AugmentKind::autoaugment:
      return add_policy(step, layer, place, slots);
    case AugmentKind::intensity: {
      const double shift = draws.uniform(-n[0], n[0]), scale = draws.uniform(-n[1], n[1]);
      return slots.add(AugmentOp::intensity, 1 + scale, shift);
    }
    case AugmentKind::gamma:
      return slots.add(AugmentOp::gamma, draws.uniform(n[0], n[1]));
    case AugmentKind::noise:
      return slots.noise(n[0], layer);
    case AugmentKind::erasing:
    case AugmentKind::mixup:
    case AugmentKind::cutmix:
      return;  // of the header
    default:
      return add_exact(step, layer, place, target, slots);
  }
}

void put_box(const CropBox& box, int32_t* to) {
  const size_t flat = 3 - box.sides.size();
  for (size_t axis = 0; axis < 3; ++axis) to[2 * axis] = 0, to[2 * axis + 1] = 1;
  for (size_t axis = 0; axis < box.sides.size(); ++axis) {
    to[2 * (flat + axis)] = static_cast<int32_t>(box.origin[axis]);
    to[2 * (flat + axis) + 1] = static_cast<int32_t>(box.origin[axis] + box.sides[axis]);
  }
}

void draw_erasing(const AugmentStep& step, uint16_t layer, const AugmentPlace& place,
                  const std::vector<int64_t>& target, AugmentHeader& header) {
  PlanDraws draws(core::Stream::augment, layer, place);
  CropBox box;
  if (draws.uniform() >= step.numbers[0] || !draw_erased(draws, target, box)) return;
  header.erase_kind =
      step.word == "noise" ? kernels::AugmentErase::noise : kernels::AugmentErase::zero;
  put_box(box, header.erase);
}

/// Paper: Yun et al. 2019, arXiv:1905.04899; the box as torchvision's CutMix draws it. The share is
/// that of the pixels which are left.
void draw_cutmix(double share, PlanDraws& draws, const std::vector<int64_t>& target,
                 AugmentHeader& header) {
  const double side_share = 0.5 * std::pow(1 - share, 1.0 / static_cast<double>(target.size()));
  CropBox box;
  int64_t inside = 1;
  for (const int64_t side : target) {
    const int64_t middle = draws.below(side);
    const auto half = static_cast<int64_t>(side_share * static_cast<double>(side));
    const int64_t low = std::max<int64_t>(middle - half, 0);
    const int64_t high = std::min(middle + half, side);
    box.origin.push_back(low);
    box.sides.push_back(high - low);
    inside *= high - low;
  }
  put_box(box, header.mix_box);
  header.share =
      1.0f - static_cast<float>(static_cast<double>(inside) / static_cast<double>(count(target)));
}

/// mixup: Zhang et al. 2018, arXiv:1710.09412. Drawn by every sample; the even one of a pair is heard.
void draw_mixing(const std::vector<const AugmentStep*>& choices, uint16_t layer,
                 const AugmentPlace& place, const std::vector<int64_t>& target,
                 AugmentHeader& header) {
  if (choices.empty()) return;
  PlanDraws draws(core::Stream::augment, layer, place);
  const int64_t which = draws.below(2);
  const AugmentStep& step = *choices[choices.size() == 2 ? static_cast<size_t>(which) : 0];
  const double share = draws.beta(step.numbers[0]);
  header.mix = step.kind == AugmentKind::mixup ? AugmentMix::mixup : AugmentMix::cutmix;
  header.share = static_cast<float>(share);
  if (header.mix == AugmentMix::cutmix) draw_cutmix(share, draws, target, header);
}

void draw_final(const StepList& list, const AugmentPlace& place, const std::vector<int64_t>& target,
                AugmentHeader& header) {
  std::vector<const AugmentStep*> mixing;
  uint16_t mixing_layer = 0;
  for (size_t layer = list.first_device; layer < list.steps.size(); ++layer) {
    const AugmentStep& step = list.steps[layer];
    if (step.kind == AugmentKind::erasing)
      draw_erasing(step, static_cast<uint16_t>(layer), place, target, header);
    if (step.kind != AugmentKind::mixup && step.kind != AugmentKind::cutmix) continue;
    if (mixing.empty()) mixing_layer = static_cast<uint16_t>(layer);
    mixing.push_back(&step);
  }
  draw_mixing(mixing, mixing_layer, place, target, header);
}

int64_t slots_of(const AugmentStep& step, size_t dimensions) {
  switch (step.kind) {
    case AugmentKind::color_jitter:
      return std::count_if(step.numbers.begin(), step.numbers.end(),
                           [](double strength) { return strength > 0; });
    case AugmentKind::randaugment:
      return static_cast<int64_t>(step.numbers[0]);
    case AugmentKind::autoaugment:
      return 2;
    case AugmentKind::blur:
      return static_cast<int64_t>(dimensions);
    default:
      return is_final(step.kind) ? 0 : 1;
  }
}

}  // namespace

int64_t plan_slots(const StepList& list, size_t dimensions) {
  int64_t slots = 0;
  for (size_t layer = list.first_device; layer < list.steps.size(); ++layer)
    slots += slots_of(list.steps[layer], dimensions);
  return slots;
}

int64_t plan_bytes(int64_t slots, int64_t channels) {
  return kernels::augment_row_bytes(slots, channels);
}

void plan_row(const StepList& list, const AugmentPlace& place, const PlanSample& sample,
              int64_t slots, uint8_t* row) {
  const auto channels = static_cast<int64_t>(sample.mean.size());
  // Rows of one batch are compared and copied as bytes: none is left undefined.
  std::memset(row, 0, static_cast<size_t>(plan_bytes(slots, channels)));
  auto& header = *reinterpret_cast<AugmentHeader*>(row);
  auto* first = reinterpret_cast<AugmentSlot*>(row + sizeof(AugmentHeader));
  SlotWriter writer(first, slots, sample.sides);
  for (size_t layer = list.first_device; layer < list.steps.size(); ++layer)
    add_step(list.steps[layer], static_cast<uint16_t>(layer), place, sample.target, writer);
  header.steps = writer.count();
  header.geometric = writer.geometric();
  header.seed = place.seed;
  header.epoch = static_cast<uint32_t>(place.epoch);
  header.index = place.index;
  header.share = 1.0f;
  const size_t flat = 3 - sample.sides.size();
  for (size_t axis = 0; axis < 3; ++axis) header.in[axis] = 1;
  for (size_t axis = 0; axis < sample.sides.size(); ++axis) {
    header.in[flat + axis] = static_cast<int32_t>(sample.sides[axis]);
    header.crop[flat + axis] =
        static_cast<int32_t>((writer.sides()[axis] - sample.target[axis]) / 2);
  }
  draw_final(list, place, sample.target, header);
  auto* mean = reinterpret_cast<float*>(first + slots);
  std::copy(sample.mean.begin(), sample.mean.end(), mean);
  std::copy(sample.std.begin(), sample.std.end(), mean + channels);
}

}  // namespace vitrail::data
