// The kernels of activation.h on the CPU against the plain loops.

#include "vitrail/kernels/activation.h"

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/activation_cases.h"

namespace vitrail::testing {
namespace {

ActivationCandidate emulated() {
  return {[](const Activation& task) { kernels::activation(task, nullptr); },
          [](const ActivationBackward& task) { kernels::activation_backward(task, nullptr); },
          kernels::activation_partials};
}

TEST(EmulatedActivation, EqualsThePlainLoopForEveryKindWidthAndAlias) {
  Worst worst;
  for (const ActivationCase& c : activation_cases()) {
    HostMemory memory;
    check_activation(emulated(), c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("activation");
}

/// Every bf16 there is, against fp64.
TEST(EmulatedActivation, ExactGeluHasTheErrorThatItsHeaderStates) {
  Bits all;
  for (uint32_t bits = 0; bits < 0x10000u; ++bits)
    if (std::fabs(kernels::from_bf16(static_cast<uint16_t>(bits))) < 100.0f)
      all.push_back(static_cast<uint16_t>(bits));
  all.resize(all.size() / 8 * 8);
  Bits out(all.size());
  kernels::activation({ActivationKind::gelu_erf, 1, static_cast<int64_t>(all.size()), all.data(),
                       nullptr, out.data()},
                      nullptr);
  double worst = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const double x = kernels::from_bf16(all[i]);
    const double exact = 0.5 * x * std::erfc(-x * 0.70710678118654752);
    // The rounding of the result, 2^-8 of it; what Phi may be wrong by, times x; the smallest normal number.
    const double allowed = std::fabs(exact) * (0x1p-8 + 4e-5) + 4e-7 * std::fabs(x) + 0x1p-126;
    const double error = std::fabs(kernels::from_bf16(out[i]) - exact);
    worst = std::max(worst, error / allowed);
    ASSERT_LE(error, allowed) << x;
  }
  std::printf("exact GELU of all %zu bf16: at most %.2f of the error allowed\n", all.size(), worst);
}

TEST(EmulatedActivation, IsTheSameInEveryOrderOfThreads) {
  for (const int64_t width : {24, 264}) {
    const ActivationCase c{ActivationKind::silu_gate, 21, width, true};
    const ActivationInputs in(c);
    HostMemory memory;
    const ActivationGradients once = run_backward(emulated(), c, in, memory);
    emulation::in_every_order(2, [&] {
      const ActivationGradients again = run_backward(emulated(), c, in, memory);
      EXPECT_EQ(again.dpre, once.dpre);
      EXPECT_EQ(again.gate_sums, once.gate_sums);
    });
  }
}

}  // namespace
}  // namespace vitrail::testing
