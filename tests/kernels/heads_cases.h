#pragma once
/// Cases of kernels/heads.h for any candidate.

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/heads.h"

namespace vitrail::testing {

using kernels::Heads;
using kernels::HeadsBackward;
using kernels::HeadsShape;

struct HeadsCandidate {
  void (*forward)(const Heads&);
  void (*backward)(const HeadsBackward&);
  int64_t (*partials)(const HeadsShape&);  // null: needs none
};
inline HeadsCandidate plain_heads() {
  return {kernels::prepare_heads_plain, kernels::prepare_heads_backward_plain, nullptr};
}

struct HeadsCase {
  HeadsShape shape;
  bool has_norm = true, is_rms = false, turns = true;
  bool own_tables = false;  // a table for every sample
  bool in_place = false;    // qk where qkv is
  bool sums = true;

  int64_t in_row() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_width; }
  int64_t count() const { return shape.samples * shape.tokens * in_row(); }
  std::string name() const {
    return std::to_string(shape.samples) + " x " + std::to_string(shape.tokens) + ", " +
           std::to_string(shape.heads) + " + " + std::to_string(shape.kv_heads) + " heads of " +
           std::to_string(shape.head_width) + (has_norm ? is_rms ? " rms" : " layer" : "") +
           (turns ? " turned" : "") + (own_tables ? " own tables" : "") +
           (in_place ? " in place" : "") + (sums ? " sums" : "");
  }
};

struct HeadsInputs {
  Bits qkv, dqkv, q_weight, q_bias, k_weight, k_bias;
  Floats cos, sin;

  explicit HeadsInputs(const HeadsCase& c)
      : qkv(bell_bits(c.count(), 51, 1.0f, 0.2f)), dqkv(bell_bits(c.count(), 52)) {
    const int64_t width = c.shape.head_width;
    if (c.has_norm) {
      q_weight = bell_bits(width, 53, 0.3f, 1.0f);
      k_weight = bell_bits(width, 54, 0.3f, 1.0f);
      if (!c.is_rms) {
        q_bias = bell_bits(width, 55, 0.3f);
        k_bias = bell_bits(width, 56, 0.3f);
      }
    }
    if (!c.turns) return;
    const int64_t count = (c.own_tables ? c.shape.samples : 1) * c.shape.tokens * (width / 2);
    for (const float angle : bell(count, 57, 2.0f)) {
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  }
};

inline Heads heads_task(const HeadsCase& c, const HeadsInputs& in, Memory& at) {
  Heads task{.shape = c.shape, .qkv = at.put(in.qkv), .has_norm = c.has_norm};
  task.q_norm = {at.put(in.q_weight), at.put(in.q_bias), 1e-6f, c.is_rms};
  task.k_norm = {at.put(in.k_weight), at.put(in.k_bias), 1e-5f, c.is_rms};
  task.cos = at.put(in.cos);
  task.sin = at.put(in.sin);
  task.table_stride = c.own_tables ? c.shape.tokens * (c.shape.head_width / 2) : 0;
  return task;
}

inline Bits run_forward(const HeadsCandidate& candidate, const HeadsCase& c, const HeadsInputs& in,
                        Memory& at) {
  Heads task = heads_task(c, in, at);
  const int64_t rows = c.shape.samples * c.shape.tokens;
  task.qk_token_stride = c.in_place ? c.in_row() : c.shape.turned() * c.shape.head_width;
  uint16_t* const qkv = at.put(in.qkv);
  if (c.in_place) task.qkv = qkv;
  task.qk =
      c.in_place ? qkv : at.put(Bits(static_cast<size_t>(rows * task.qk_token_stride), 0x7FC0));
  candidate.forward(task);
  return at.get(task.qk, rows * task.qk_token_stride);
}

struct HeadsGradients {
  Bits dqkv;
  Floats dq_weight, dq_bias, dk_weight, dk_bias;
};

inline HeadsGradients run_backward(const HeadsCandidate& candidate, const HeadsCase& c,
                                   const HeadsInputs& in, Memory& at) {
  const int64_t width = c.shape.head_width;
  HeadsBackward task{.forward = heads_task(c, in, at), .dqkv = at.put(in.dqkv)};
  if (c.has_norm && c.sums) {
    const Floats start = bell(width, 58);
    task.dq_weight = at.put(start);
    task.dk_weight = at.put(start);
    if (!c.is_rms) {
      task.dq_bias = at.put(start);
      task.dk_bias = at.put(start);
    }
    if (candidate.partials)
      task.partials = at.put(Floats(static_cast<size_t>(candidate.partials(c.shape)), NAN));
  }
  candidate.backward(task);
  return {at.get(task.dqkv, c.count()), at.get(task.dq_weight, width), at.get(task.dq_bias, width),
          at.get(task.dk_weight, width), at.get(task.dk_bias, width)};
}

inline void check_heads(const HeadsCandidate& candidate, const HeadsCase& c, Memory& at,
                        Worst& worst) {
  const HeadsInputs in(c);
  HostMemory host;
  expect_close(run_forward(plain_heads(), c, in, host), run_forward(candidate, c, in, at),
               c.name() + ": qk", worst);
  const HeadsGradients expected = run_backward(plain_heads(), c, in, host),
                       actual = run_backward(candidate, c, in, at);
  expect_close(expected.dqkv, actual.dqkv, c.name() + ": dqkv", worst);
  expect_close(expected.dq_weight, actual.dq_weight, c.name() + ": dq_weight", worst);
  expect_close(expected.dq_bias, actual.dq_bias, c.name() + ": dq_bias", worst);
  expect_close(expected.dk_weight, actual.dk_weight, c.name() + ": dk_weight", worst);
  expect_close(expected.dk_bias, actual.dk_bias, c.name() + ": dk_bias", worst);
}

inline std::vector<HeadsCase> heads_cases() {
  std::vector<HeadsCase> cases;
  int turn = 0;
  for (const int64_t width : {8, 16, 24, 32, 64, 80, 88, 128, 256})
    for (const auto& [heads, kv_heads] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {4, 2}, {12, 12}})
      for (const int mode : {0, 1, 2, 3, 4}) {
        HeadsCase c{.shape = {2, turn % 2 == 0 ? 5 : 17, heads, kv_heads, width}};
        c.has_norm = mode != 0;
        c.is_rms = mode % 2 == 0;
        c.turns = mode != 1;
        c.own_tables = turn % 3 == 0;
        c.in_place = turn % 4 < 2;
        c.sums = mode != 4;
        cases.push_back(c);
        ++turn;
      }
  // More heads than all blocks take at once.
  cases.push_back({.shape = {2, 2000, 12, 12, 64}});
  return cases;
}

}  // namespace vitrail::testing
