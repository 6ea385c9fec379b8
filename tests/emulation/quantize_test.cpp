// The kernels of quantize.h on the CPU against the plain loops.

#include "vitrail/kernels/quantize.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/code_cases.h"

namespace vitrail::testing {
namespace {

QuantizeCandidate emulated() {
  return {[](const QuantizeRows& task) { kernels::quantize_rows(task, nullptr); },
          [](const TransposeQuantized& task) { kernels::transpose_quantized(task, nullptr); }};
}

TEST(EmulatedQuantize, EqualsThePlainLoopInBothLayoutsBitForBit) {
  for (const QuantizeCase& c : quantize_cases()) {
    HostMemory memory;
    check_quantize(emulated(), c, memory);
  }
}

TEST(EmulatedQuantize, IsTheSameInEveryOrderOfThreads) {
  for (const int64_t width : {48, 272, 2816}) {
    const QuantizeCase c{Fp8::e4m3, 19, width};
    HostMemory memory;
    const QuantizeResult once = run_quantize(emulated(), c, memory);
    emulation::in_every_order(2, [&] {
      const QuantizeResult again = run_quantize(emulated(), c, memory);
      EXPECT_EQ(again.values, once.values);
      EXPECT_EQ(again.transposed, once.transposed);
      EXPECT_EQ(again.largest, once.largest);
    });
  }
}

// Plain loops and kernels need not round alike before codes are made, so codes are compared with those of the kernel's
// own result.
TEST(EmulatedQuantize, NormsWriteTheCodesOfTheirResults) {
  HostMemory memory;
  check_norm_codes({[](const ResidualNorm& task) { kernels::residual_norm(task, nullptr); },
                    nullptr, kernels::residual_norm_partials},
                   memory);
  check_norm_codes(plain_norm(), memory);
}

TEST(EmulatedQuantize, ActivationsWriteTheCodesOfTheirResults) {
  HostMemory memory;
  check_activation_codes(
      {[](const Activation& task) { kernels::activation(task, nullptr); },
       [](const ActivationBackward& task) { kernels::activation_backward(task, nullptr); },
       kernels::activation_partials},
      memory);
  check_activation_codes(plain_activation(), memory);
}

TEST(EmulatedQuantize, ActivationsWithCodesAreTheSameInEveryOrderOfThreads) {
  emulation::in_every_order(2, [] {
    HostMemory memory;
    const int64_t rows = 9, width = 1280;
    const CodeRows codes = code_rows(rows, width, memory);
    kernels::activation({.rows = rows,
                         .width = width,
                         .pre = memory.put(bell_bits(rows * width, 31, 2.0f)),
                         .codes = codes},
                        nullptr);
    static const std::vector<uint8_t> once = memory.get(codes.values, rows * width);
    EXPECT_EQ(memory.get(codes.values, rows * width), once);
  });
}

}  // namespace
}  // namespace vitrail::testing
