#include "vitrail/core/permutation.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {

Sequence::Sequence(int64_t size, uint64_t seed, bool shuffle, uint64_t stream)
    : size_(size), seed_(seed), stream_(stream), shuffle_(shuffle) {}

int64_t Sequence::sample_at(int64_t epoch, int64_t slot) const {
  if (!shuffle_) return slot;
  const core::Philox4 bits = core::draw4(
      {seed_, core::Stream::order, static_cast<uint32_t>(epoch), 0}, stream_, /*block=*/0);
  const uint64_t key = static_cast<uint64_t>(bits.x[0]) << 32 | bits.x[1];
  const core::KeyedPermutation permutation(static_cast<uint64_t>(size_), key);
  return static_cast<int64_t>(permutation(static_cast<uint64_t>(slot)));
}

}  // namespace vitrail::data
