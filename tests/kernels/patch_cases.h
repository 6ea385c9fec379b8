#pragma once
/// Cases of kernels/patch.h for any candidate.

#include <numeric>

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/patch.h"

namespace vitrail::testing {

using kernels::RestoreTokens;
using kernels::RestoreTokensSums;
using kernels::TokenShape;

struct PatchCandidate {
  void (*keep)(const TokenShape&, const uint16_t* all, const int64_t* keep, uint16_t* kept);
  void (*restore)(const RestoreTokens&);
  void (*sums)(const RestoreTokensSums&);
  int64_t (*partials)(const TokenShape&);  // null: needs none
};
inline PatchCandidate plain_patch() {
  return {kernels::keep_tokens_plain, kernels::restore_tokens_plain,
          kernels::restore_tokens_sums_plain, nullptr};
}

struct PatchCase {
  TokenShape shape;
  bool token = true, positions = true, prefix_positions = true, own_positions = false;

  int64_t all() const { return shape.samples * (shape.prefix + shape.tokens) * shape.width; }
  int64_t kept() const { return shape.samples * (shape.prefix + shape.kept) * shape.width; }
  std::string name() const {
    return std::to_string(shape.samples) + " x " + std::to_string(shape.prefix) + " + " +
           std::to_string(shape.kept) + " of " + std::to_string(shape.tokens) + " x " +
           std::to_string(shape.width);
  }
};

struct PatchInputs {
  Bits all, kept, token, positions, prefix_positions;
  std::vector<int64_t> keep, restore;

  explicit PatchInputs(const PatchCase& c)
      : all(bell_bits(c.all(), 81)), kept(bell_bits(c.kept(), 82)) {
    const TokenShape& s = c.shape;
    if (c.token) token = bell_bits(s.width, 83);
    if (c.positions)
      positions = bell_bits((c.own_positions ? s.samples : 1) * s.tokens * s.width, 84);
    if (c.prefix_positions) prefix_positions = bell_bits(s.prefix * s.width, 85);
    for (int64_t sample = 0; sample < s.samples; ++sample) {
      std::vector<int64_t> order(static_cast<size_t>(s.tokens)), places(order);
      std::iota(order.begin(), order.end(), 0);
      const Floats noise = bell(s.tokens, static_cast<uint16_t>(90 + sample));
      std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return noise[static_cast<size_t>(a)] < noise[static_cast<size_t>(b)];
      });
      for (size_t i = 0; i < order.size(); ++i)
        places[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
      keep.insert(keep.end(), order.begin(), order.begin() + s.kept);
      restore.insert(restore.end(), places.begin(), places.end());
    }
  }
};

struct PatchResult {
  Bits kept, all, spread;  // spread: restored without token and positions
  Floats dmask_token, dpositions, dprefix_positions;
};

inline PatchResult run(const PatchCandidate& candidate, const PatchCase& c, const PatchInputs& in,
                       Memory& at) {
  const TokenShape& s = c.shape;
  const Bits no_kept(static_cast<size_t>(c.kept()), 0x7FC0),
      no_all(static_cast<size_t>(c.all()), 0x7FC0);
  uint16_t *const kept = at.put(no_kept), *const all = at.put(in.all);
  int64_t* const restore = at.put(in.restore);
  candidate.keep(s, all, at.put(in.keep), kept);
  RestoreTokens task{.shape = s,
                     .kept = at.put(in.kept),
                     .restore = restore,
                     .mask_token = at.put(in.token),
                     .positions = at.put(in.positions),
                     .prefix_positions = at.put(in.prefix_positions),
                     .position_stride = c.own_positions ? s.tokens * s.width : 0,
                     .all = at.put(no_all)};
  candidate.restore(task);
  RestoreTokens bare{.shape = s, .kept = task.kept, .restore = restore};
  bare.all = at.put(no_all);
  candidate.restore(bare);
  RestoreTokensSums sums{.shape = s, .dall = all, .restore = restore};
  if (c.token) sums.dmask_token = at.put(bell(s.width, 86));
  if (c.positions) sums.dpositions = at.put(bell(s.tokens * s.width, 87));
  if (c.prefix_positions) sums.dprefix_positions = at.put(bell(s.prefix * s.width, 88));
  if (candidate.partials)
    sums.partials = at.put(Floats(static_cast<size_t>(candidate.partials(s)), NAN));
  candidate.sums(sums);
  return {at.get(kept, c.kept()),
          at.get(task.all, c.all()),
          at.get(bare.all, c.all()),
          at.get(sums.dmask_token, s.width),
          at.get(sums.dpositions, s.tokens * s.width),
          at.get(sums.dprefix_positions, s.prefix * s.width)};
}

inline void check_patch(const PatchCandidate& candidate, const PatchCase& c, Memory& at,
                        Worst& worst) {
  const PatchInputs in(c);
  HostMemory host;
  const PatchResult expected = run(plain_patch(), c, in, host), actual = run(candidate, c, in, at);
  EXPECT_EQ(expected.kept, actual.kept) << c.name();
  EXPECT_EQ(expected.all, actual.all) << c.name();
  EXPECT_EQ(expected.spread, actual.spread) << c.name();
  expect_close(expected.dmask_token, actual.dmask_token, c.name() + ": dmask_token", worst);
  expect_close(expected.dpositions, actual.dpositions, c.name() + ": dpositions", worst);
  expect_close(expected.dprefix_positions, actual.dprefix_positions,
               c.name() + ": dprefix_positions", worst);
}

inline std::vector<PatchCase> patch_cases() {
  return {{.shape = {1, 1, 1, 0, 8}, .token = false, .positions = false, .prefix_positions = false},
          {.shape = {3, 16, 4, 1, 24}},
          {.shape = {2, 196, 49, 1, 192}, .own_positions = true},
          {.shape = {2, 49, 12, 5, 768}, .prefix_positions = false},
          {.shape = {4, 33, 33, 2, 264}, .positions = false}};
}

}  // namespace vitrail::testing
