#include "vitrail/kernels/augment.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/kernels/augment_finish.h"

namespace vitrail::kernels {
namespace {

/// One image [channels, 1, rows, columns] and the slots that are done to it, mean 0 and deviation 1.
struct Case {
  int32_t rows = 4, columns = 5, channels = 3;
  std::vector<AugmentSlot> slots;

  void add(AugmentOp op, float first = 0, float second = 0, int32_t number = 0) {
    AugmentSlot slot;
    std::memset(static_cast<void*>(&slot), 0, sizeof(slot));
    slot.op = op;
    slot.value[0] = first;
    slot.value[1] = second;
    slot.number = number;
    for (int32_t* sides : {slot.in, slot.out}) sides[0] = 1, sides[1] = rows, sides[2] = columns;
    slots.push_back(slot);
  }

  std::vector<float> run(std::vector<float> image) const {
    const auto n = static_cast<int64_t>(slots.size());
    std::vector<uint64_t> plan(static_cast<size_t>(augment_row_bytes(n, channels) / 8), 0);
    auto& header = *reinterpret_cast<AugmentHeader*>(plan.data());
    header.steps = static_cast<int32_t>(n);
    header.in[0] = 1, header.in[1] = rows, header.in[2] = columns;
    auto* first = reinterpret_cast<AugmentSlot*>(&header + 1);
    std::copy(slots.begin(), slots.end(), first);
    std::fill_n(reinterpret_cast<float*>(first + n) + channels, channels, 1.0f);
    std::vector<float> other(image.size()), out(image.size());
    std::vector<char> statistics(static_cast<size_t>(augment_statistics_bytes(1, channels)));
    AugmentBatch batch;
    batch.plan = reinterpret_cast<const uint8_t*>(plan.data());
    batch.row_bytes = augment_row_bytes(n, channels);
    batch.slots = n;
    batch.batch = 1;
    batch.target[1] = rows;
    batch.target[2] = columns;
    batch.image = {image.data(), other.data(), out.data(), channels,
                   static_cast<int64_t>(image.size())};
    batch.statistics = statistics.data();
    augment_cpu(batch, 1);
    return out;
  }
};

std::vector<float> bytes(size_t n, int32_t step, int32_t low = 0) {
  std::vector<float> values;
  for (size_t i = 0; i < n; ++i)
    values.push_back(unit_of((low + static_cast<int32_t>(i) * step) % 256));
  return values;
}

TEST(Augment, OperationsOnBytesHitBytes) {
  Case one;
  one.channels = 1;
  one.add(AugmentOp::posterize, 0, 0, 3);
  const std::vector<float> in = bytes(20, 13);
  const std::vector<float> out = one.run(in);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], unit_of(byte_of(in[i]) & 0xE0));
  Case other;
  other.channels = 1;
  other.add(AugmentOp::solarize, 128);
  const std::vector<float> sun = other.run(in);
  for (size_t i = 0; i < in.size(); ++i)
    EXPECT_EQ(sun[i], unit_of(byte_of(in[i]) >= 128 ? 255 - byte_of(in[i]) : byte_of(in[i])));
}

TEST(Augment, AutocontrastStretchesEveryChannelToTheFullRange) {
  Case made;
  made.add(AugmentOp::autocontrast);
  std::vector<float> in = bytes(60, 3, 40);
  std::fill(in.begin() + 40, in.end(), 0.5f);  // a channel of one value stays
  const std::vector<float> out = made.run(in);
  for (int c = 0; c < 2; ++c) {
    EXPECT_EQ(*std::min_element(out.begin() + 20 * c, out.begin() + 20 * c + 20), 0.0f);
    EXPECT_EQ(*std::max_element(out.begin() + 20 * c, out.begin() + 20 * c + 20), 1.0f);
  }
  EXPECT_EQ(out[50], unit_of(128));
}

TEST(Augment, FactorsOfOneAndTurnsOfZeroKeepTheImage) {
  const std::vector<float> in = bytes(60, 37);
  for (const AugmentOp op : {AugmentOp::brightness, AugmentOp::contrast, AugmentOp::saturation,
                             AugmentOp::sharpness, AugmentOp::intensity, AugmentOp::gamma}) {
    Case made;
    made.add(op, 1);
    EXPECT_EQ(made.run(in), in) << static_cast<int>(op);
  }
  Case hue;
  hue.add(AugmentOp::hue, 0);
  const std::vector<float> out = hue.run(in);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_NEAR(out[i], in[i], 1e-6);
}

TEST(Augment, SlotsFollowEachOther) {
  Case made;
  made.add(AugmentOp::invert);
  made.add(AugmentOp::intensity, 2, 0.25f);
  made.add(AugmentOp::invert);
  const std::vector<float> in = bytes(60, 11), out = made.run(in);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], 1.0f - ((1.0f - in[i]) * 2.0f + 0.25f));
}

}  // namespace
}  // namespace vitrail::kernels
