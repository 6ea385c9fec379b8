#pragma once
/// Largest sizes that a recipe may ask for: far above any model, far below what would overflow or
/// exhaust a machine by a slip of the hand.

#include <cstdint>

namespace vitrail::config {

constexpr int64_t kMaxWidth = 65536;
constexpr int64_t kMaxBlocks = 10000;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxSide = 65536;
constexpr int64_t kMaxPatch = 4096;
constexpr int64_t kMaxChannels = 4096;
constexpr int64_t kMaxClasses = 10'000'000;
constexpr int64_t kMaxRegisters = 65536;
constexpr int64_t kMaxHidden = int64_t{1} << 22;
constexpr int64_t kMaxPatches = int64_t{1} << 24;
constexpr int64_t kMaxValues = int64_t{1} << 34;  // of one image: 64 GiB in fp32
constexpr int64_t kMaxQueries = 64;
constexpr int64_t kMaxFeatures = 4096;
constexpr int64_t kMaxTimesteps = 100'000;
constexpr int64_t kMaxAxis = int64_t{1} << 50;  // of an array in a file
constexpr int64_t kMaxRanks = int64_t{1} << 20;
constexpr int64_t kMaxPixels = 4096;  // of crop:PAD and shift:PIXELS
constexpr int64_t kMaxCrops = int64_t{1} << 20;
constexpr double kMaxOverlap = 0.9;  // more would read every pixel hundreds of times

}  // namespace vitrail::config
