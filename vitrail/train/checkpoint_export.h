#pragma once
/// Checkpoints in words and as plain weights, for `vitrail checkpoint`.

#include <cstdint>
#include <string>

#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// "step-00001000  step 1000  epoch 3  2026-11-21T08:40:12Z  12.3 MiB  4 files  valid", or why it
/// is not.
std::string describe_checkpoint(const std::string& path, bool full);

/// Lines: counters that differ, tensors that differ with their largest difference, and a summary.
std::string describe_difference(const CheckpointReader& a, const CheckpointReader& b);

/// Writes read_parameters(path, ema) to one safetensors file, whole or not at all. Returns the
/// number of tensors.
int64_t export_parameters(const std::string& path, bool ema, const std::string& output);

}  // namespace vitrail::train
