#pragma once
/// Norms and activations that write codes besides: those of quantize_rows_plain on the candidate's own result.

#include "tests/kernels/activation_cases.h"
#include "tests/kernels/norm_cases.h"
#include "tests/kernels/quantize_cases.h"

namespace vitrail::testing {

using kernels::CodeRows;

inline CodeRows code_rows(int64_t rows, int64_t width, Memory& at) {
  return {at.put(std::vector<uint8_t>(static_cast<size_t>(rows * width), 0xAA)),
          at.put(Floats(static_cast<size_t>(rows), NAN)), at.put(Floats(1, 0.0f))};
}

inline void expect_codes_of(const Bits& bits, int64_t rows, int64_t width, const CodeRows& codes,
                            Memory& at, const std::string& what) {
  HostMemory host;
  const CodeRows expected = code_rows(rows, width, host);
  kernels::quantize_rows_plain({.rows = rows,
                                .width = width,
                                .x = bits.data(),
                                .values = expected.values,
                                .scales = expected.scales,
                                .largest = expected.largest});
  EXPECT_EQ(at.get(codes.values, rows * width), host.get(expected.values, rows * width)) << what;
  EXPECT_EQ(at.get(codes.scales, rows), host.get(expected.scales, rows)) << what;
  EXPECT_EQ(at.get(codes.largest, 1), host.get(expected.largest, 1)) << what;
}

/// Widths of every way of sharing a row.
inline std::vector<int64_t> code_widths() { return {16, 192, 272, 1280, 2064, 3840, 5120}; }

inline void check_norm_codes(const NormCandidate& candidate, Memory& at) {
  for (const int64_t width : code_widths())
    for (const bool adds : {false, true}) {
      NormCase c{.shape = {3, 7, width}, .is_rms = width % 64 == 0, .adds = adds};
      c.gamma = adds;
      const NormInputs in(c);
      const int64_t rows = c.shape.rows();
      const NormForward alone = run_forward(candidate, c, in, at);
      for (const bool wants_y : {true, false}) {
        ResidualNorm task{.shape = c.shape, .norm = parameters_of(c, in, at)};
        task.x = at.put(in.x);
        task.branch = {at.put(in.branch), at.put(in.gamma), nullptr};
        if (adds) task.sum = at.put(Bits(in.x.size()));
        if (wants_y) task.y = at.put(Bits(in.x.size()));
        if (!c.is_rms) task.mean = at.put(Floats(static_cast<size_t>(rows)));
        task.rstd = at.put(Floats(static_cast<size_t>(rows)));
        task.codes = code_rows(rows, width, at);
        candidate.forward(task);
        if (wants_y) {
          EXPECT_EQ(at.get(task.y, rows * width), alone.y) << c.name();
        }
        EXPECT_EQ(at.get(task.rstd, rows), alone.rstd) << c.name();
        expect_codes_of(alone.y, rows, width, task.codes, at, c.name());
      }
    }
}

inline void check_activation_codes(const ActivationCandidate& candidate, Memory& at) {
  Worst worst;
  for (const int64_t width : code_widths())
    for (const ActivationKind kind : {ActivationKind::gelu_erf, ActivationKind::gelu_tanh})
      for (const bool is_wide : {true, false}) {
        const ActivationCase c{kind, 21, width, is_wide};
        const ActivationInputs in(c);
        const Bits out = run_forward(candidate, c, in, at);
        const ActivationGradients alone = run_backward(candidate, c, in, at);
        Activation forward{kind, c.rows, width, at.put(in.pre)};
        if (is_wide) forward.out = at.put(Bits(out.size()));
        forward.codes = code_rows(c.rows, width, at);
        candidate.forward(forward);
        if (is_wide) {
          EXPECT_EQ(at.get(forward.out, c.rows * width), out) << c.name();
        }
        expect_codes_of(out, c.rows, width, forward.codes, at, c.name());

        ActivationBackward task{.forward = {kind, c.rows, width, at.put(in.pre)},
                                .dout = at.put(in.dout)};
        if (is_wide) task.forward.out = at.put(Bits(out.size()));
        if (is_wide) task.dpre = at.put(Bits(out.size()));
        task.dpre_codes = code_rows(c.rows, width, at);
        task.pre_sums = at.put(bell(width, 34));
        if (candidate.partials)
          task.partials =
              at.put(Floats(static_cast<size_t>(candidate.partials(c.rows, width)), NAN));
        candidate.backward(task);
        if (is_wide) {
          EXPECT_EQ(at.get(task.dpre, c.rows * width), alone.dpre) << c.name();
        }
        if (is_wide) {
          EXPECT_EQ(at.get(task.forward.out, c.rows * width), alone.out) << c.name();
        }
        expect_codes_of(alone.dpre, c.rows, width, task.dpre_codes, at, c.name());
        expect_close(alone.pre_sums, at.get(task.pre_sums, width), c.name() + ": sums", worst);
      }
  worst.print("activations with codes");
}

}  // namespace vitrail::testing
