#include "vitrail/core/permutation.h"

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::core {

KeyedPermutation::KeyedPermutation(uint64_t size, uint64_t key) : size_(size) {
  VT_CHECK(size >= 1, "[permutation] size must be at least 1 but got 0");
  while (half_bits_ < 32 && ((size - 1) >> (2 * half_bits_)) != 0) ++half_bits_;
  half_mask_ = (uint64_t{1} << half_bits_) - 1;
  for (int round = 0; round < kRounds; ++round)
    round_keys_[round] = mix64(key + mix64(static_cast<uint64_t>(round)));
}

uint64_t KeyedPermutation::scramble(uint64_t value) const {
  uint64_t left = value >> half_bits_;
  uint64_t right = value & half_mask_;
  for (const uint64_t round_key : round_keys_) {
    const uint64_t mixed = left ^ (mix64(right ^ round_key) & half_mask_);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

uint64_t KeyedPermutation::operator()(uint64_t index) const {
  VT_CHECK(index < size_, "[permutation] index must be below {} but got {}", size_, index);
  // The network permutes [0, 4^half_bits), somewhat too large: walk its cycle back into range.
  do index = scramble(index);
  while (index >= size_);
  return index;
}

}  // namespace vitrail::core
