#pragma once
/// Cases of kernels/activation.h for any candidate.

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/activation.h"

namespace vitrail::testing {

using kernels::Activation;
using kernels::ActivationBackward;
using kernels::ActivationKind;

struct ActivationCandidate {
  void (*forward)(const Activation&);
  void (*backward)(const ActivationBackward&);
  int64_t (*partials)(int64_t rows, int64_t width);  // null: needs none
};
inline ActivationCandidate plain_activation() {
  return {kernels::activation_plain, kernels::activation_backward_plain, nullptr};
}

struct ActivationCase {
  ActivationKind kind;
  int64_t rows, width;
  bool again = false;     // backward writes the activation again
  bool in_place = false;  // out in pre; dpre in dout or pre, dgate in gate
  bool sums = true;

  std::string name() const {
    return std::to_string(static_cast<int>(kind)) + ": " + std::to_string(rows) + " x " +
           std::to_string(width) + (again ? " again" : "") + (in_place ? " in place" : "") +
           (sums ? " sums" : "");
  }
};

struct ActivationInputs {
  Bits pre, gate, dout;
  explicit ActivationInputs(const ActivationCase& c)
      : pre(bell_bits(c.rows * c.width, 31, 2.0f)), dout(bell_bits(c.rows * c.width, 33)) {
    if (c.kind == ActivationKind::silu_gate) gate = bell_bits(c.rows * c.width, 32, 2.0f);
    // Far out, where the exact form is small or saturates.
    for (size_t i = 0; i < pre.size(); i += 5)
      pre[i] = kernels::to_bf16(4.0f * kernels::from_bf16(pre[i]));
  }
};

inline Bits run_forward(const ActivationCandidate& candidate, const ActivationCase& c,
                        const ActivationInputs& in, Memory& at) {
  const int64_t count = c.rows * c.width;
  uint16_t* const pre = at.put(in.pre);
  const Activation task{
      c.kind, c.rows,          c.width,
      pre,    at.put(in.gate), c.in_place ? pre : at.put(Bits(static_cast<size_t>(count), 0x7FC0))};
  candidate.forward(task);
  return at.get(task.out, count);
}

struct ActivationGradients {
  Bits out, dpre, dgate;
  Floats pre_sums, gate_sums;
};

inline ActivationGradients run_backward(const ActivationCandidate& candidate,
                                        const ActivationCase& c, const ActivationInputs& in,
                                        Memory& at) {
  const int64_t count = c.rows * c.width;
  const bool gated = c.kind == ActivationKind::silu_gate;
  const Bits empty(static_cast<size_t>(count), 0x7FC0);
  uint16_t *const pre = at.put(in.pre), *const gate = at.put(in.gate),
                  *const dout = at.put(in.dout);
  ActivationBackward task{.forward = {c.kind, c.rows, c.width, pre, gate, nullptr}, .dout = dout};
  if (c.again) task.forward.out = at.put(empty);
  task.dpre = !c.in_place ? at.put(empty) : c.rows % 2 ? dout : pre;
  if (gated) task.dgate = c.in_place ? gate : at.put(empty);
  if (c.sums) {
    const Floats start = bell(c.width, 34);
    task.pre_sums = at.put(start);
    if (gated) task.gate_sums = at.put(start);
    if (candidate.partials)
      task.partials = at.put(Floats(static_cast<size_t>(candidate.partials(c.rows, c.width)), NAN));
  }
  candidate.backward(task);
  return {at.get(task.forward.out, count), at.get(task.dpre, count), at.get(task.dgate, count),
          at.get(task.pre_sums, c.width), at.get(task.gate_sums, c.width)};
}

/// Sums of the columns of `bits`, begun as run_backward begins them.
inline Floats sums_of(const Bits& bits, int64_t rows, int64_t width) {
  Floats sums = bell(width, 34);
  kernels::column_sums_plain(bits.data(), rows, width, width, sums.data());
  return sums;
}

inline void check_activation(const ActivationCandidate& candidate, const ActivationCase& c,
                             Memory& at, Worst& worst) {
  const ActivationInputs in(c);
  HostMemory host;
  expect_close(run_forward(plain_activation(), c, in, host), run_forward(candidate, c, in, at),
               c.name() + ": out", worst);
  const ActivationGradients expected = run_backward(plain_activation(), c, in, host),
                            actual = run_backward(candidate, c, in, at);
  expect_close(expected.out, actual.out, c.name() + ": out again", worst);
  expect_close(expected.dpre, actual.dpre, c.name() + ": dpre", worst);
  expect_close(expected.dgate, actual.dgate, c.name() + ": dgate", worst);
  if (!c.sums) return;
  // Of the candidate's own gradients: one rounding that falls the other way is no error of a sum.
  expect_close(sums_of(actual.dpre, c.rows, c.width), actual.pre_sums, c.name() + ": sums", worst);
  if (!actual.dgate.empty())
    expect_close(sums_of(actual.dgate, c.rows, c.width), actual.gate_sums, c.name() + ": gate sums",
                 worst);
}

inline std::vector<ActivationCase> activation_cases() {
  std::vector<ActivationCase> cases;
  int turn = 0;
  for (const ActivationKind kind :
       {ActivationKind::gelu_erf, ActivationKind::gelu_tanh, ActivationKind::silu_gate})
    for (const int64_t width : {8, 24, 64, 192, 768, 1024, 1280, 2816, 4096, 16384})
      for (const int64_t rows : {1, 3, 197}) {
        if (width > 1280 && rows > 3) continue;
        cases.push_back({kind, rows, width, turn % 2 == 0, turn % 3 == 0, turn % 4 != 3});
        ++turn;
      }
  // More rows than all blocks take at once.
  cases.push_back({ActivationKind::gelu_erf, 300'000, 8});
  cases.push_back({ActivationKind::silu_gate, 34'000, 264, true});
  return cases;
}

/// Column sums of a matrix that lies in a wider one.
struct ColumnCase {
  int64_t rows, width, stride;
};
inline std::vector<ColumnCase> column_cases() {
  return {{1, 8, 8},        {3, 24, 24},       {197, 64, 192},    {197, 768, 2304},
          {50, 4096, 4096}, {3, 16384, 16384}, {70'000, 264, 272}};
}

inline void check_columns(void (*sum)(const uint16_t*, int64_t, int64_t, int64_t, float*, float*),
                          int64_t (*partials)(int64_t, int64_t), const ColumnCase& c, Memory& at,
                          Worst& worst) {
  const Bits x = bell_bits(c.rows * c.stride, 41, 1.0f, 0.1f);
  Floats expected = bell(c.width, 42);
  float* const sums = at.put(expected);
  sum(at.put(x), c.rows, c.width, c.stride,
      at.put(Floats(static_cast<size_t>(partials(c.rows, c.width)), NAN)), sums);
  kernels::column_sums_plain(x.data(), c.rows, c.width, c.stride, expected.data());
  expect_close(expected, at.get(sums, c.width), std::to_string(c.width) + " columns", worst);
}

}  // namespace vitrail::testing
