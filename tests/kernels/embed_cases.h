#pragma once
/// Cases of kernels/embed.h for any candidate.

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/embed.h"

namespace vitrail::testing {

using kernels::JoinTokens;
using kernels::Patchify;
using kernels::SplitTokens;

struct EmbedCandidate {
  void (*patchify)(const Patchify&);
  void (*join)(const JoinTokens&);
  void (*split)(const SplitTokens&);
};

/// 2-D and 3-D, patches of 8, of an even and of an odd edge, sides that differ.
inline std::vector<Patchify> patchify_cases() {
  return {{.samples = 2, .channels = 3, .grid = {1, 3, 2}, .patch = 16},
          {.samples = 3, .channels = 1, .grid = {1, 2, 5}, .patch = 14},
          {.samples = 1, .channels = 2, .grid = {1, 4, 3}, .patch = 5},
          {.samples = 2, .channels = 2, .grid = {2, 1, 3}, .patch = 4, .is_volume = true},
          {.samples = 1, .channels = 1, .grid = {3, 2, 2}, .patch = 8, .is_volume = true}};
}

inline int64_t values_of(const Patchify& task) {
  const int64_t depth = task.is_volume ? task.patch : 1;
  return task.samples * task.channels * task.grid[0] * task.grid[1] * task.grid[2] * depth *
         task.patch * task.patch;
}

struct JoinCase {
  int64_t samples, tokens, prefix, width;
  bool positions;
};
inline std::vector<JoinCase> join_cases() {
  return {{3, 49, 1, 64, true}, {2, 7, 5, 264, true}, {4, 1, 1, 8, false}, {1, 300, 2, 72, true}};
}

/// Candidate and plain loop on the same memory; both must agree to the bit.
inline void check_embed(const EmbedCandidate& candidate, Memory& memory) {
  for (Patchify task : patchify_cases()) {
    const int64_t count = values_of(task);
    const Floats image = bell(count, 31);
    Bits expected(static_cast<size_t>(count));
    task.image = image.data(), task.patches = expected.data();
    kernels::patchify_plain(task);
    uint16_t* const found = memory.put(Bits(static_cast<size_t>(count), 0x7FC0));
    task.image = memory.put(image), task.patches = found;
    candidate.patchify(task);
    EXPECT_EQ(memory.get(found, count), expected) << "patches of " << task.patch;
  }
  for (const JoinCase& c : join_cases()) {
    const Bits rows = bell_bits(c.samples * c.tokens * c.width, 32),
               positions = bell_bits(c.tokens * c.width, 33),
               prefix = bell_bits(c.prefix * c.width, 34);
    const int64_t count = c.samples * (c.prefix + c.tokens) * c.width;
    Bits expected(static_cast<size_t>(count));
    JoinTokens task{c.samples,     c.tokens,       c.prefix,
                    c.width,       rows.data(),    c.positions ? positions.data() : nullptr,
                    prefix.data(), expected.data()};
    kernels::join_tokens_plain(task);
    uint16_t* const all = memory.put(Bits(static_cast<size_t>(count), 0x7FC0));
    task.rows = memory.put(rows), task.prefix_rows = memory.put(prefix), task.all = all;
    if (c.positions) task.positions = memory.put(positions);
    candidate.join(task);
    EXPECT_EQ(memory.get(all, count), expected) << c.prefix << " + " << c.tokens;

    Bits apart(rows.size());
    SplitTokens split{c.samples, c.tokens, c.prefix, c.width, expected.data(), apart.data()};
    kernels::split_tokens_plain(split);
    uint16_t* const back = memory.put(Bits(rows.size(), 0x7FC0));
    split.all = all, split.rows = back;
    candidate.split(split);
    EXPECT_EQ(memory.get(back, static_cast<int64_t>(rows.size())), apart);
    if (!c.positions) {
      EXPECT_EQ(apart, rows);
    }
  }
}

}  // namespace vitrail::testing
