#pragma once
/// How much memory a piece of code holds at once. A single allocation of more than
/// kMostBytesAtOnce fails, as it would on a small machine.

#include <cstdint>

namespace vitrail::testing {

inline constexpr int64_t kMostBytesAtOnce = int64_t{512} << 20;

/// Counts from here on, from zero.
void start_meter();
/// The most bytes that were held at once since then, of those allocated since then.
int64_t peak_bytes();

}  // namespace vitrail::testing
