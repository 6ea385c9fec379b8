#pragma once
/// The row of numbers that says what is to be done to one sample on the device.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/data/augment.h"

namespace vitrail::data {

/// What a row needs besides its list.
struct PlanSample {
  std::vector<int64_t> sides;        // of the sample as it enters
  std::vector<int64_t> target;       // model.image_size
  std::span<const float> mean, std;  // per channel
};

/// Slots that the device steps of the list fill at most, for images of this number of sides.
int64_t plan_slots(const StepList& list, size_t dimensions);
/// Bytes of a row.
int64_t plan_bytes(int64_t slots, int64_t channels);

/// Draws the device steps of the list for one sample and writes its row of plan_bytes(slots, channels)
/// bytes, 8-byte aligned. The same arguments give the same bytes: draws are functions of (seed, epoch,
/// sample index, place in the list).
/// Threads  any number.
void plan_row(const StepList& list, const AugmentPlace& place, const PlanSample& sample,
              int64_t slots, uint8_t* row);

}  // namespace vitrail::data
