// Sums of columns on the CPU against the plain loop.

#include <gtest/gtest.h>

#include "emulator.h"
#include "tests/kernels/activation_cases.h"

namespace vitrail::testing {
namespace {

void emulated(const uint16_t* x, int64_t rows, int64_t width, int64_t stride, float* partials,
              float* sums) {
  kernels::column_sums(x, rows, width, stride, partials, sums, nullptr);
}

TEST(EmulatedColumnSums, EqualThePlainLoopWhateverTheStride) {
  Worst worst;
  for (const ColumnCase& c : column_cases()) {
    HostMemory memory;
    check_columns(emulated, kernels::column_sums_partials, c, memory, worst);
    if (HasFatalFailure()) return;
  }
  worst.print("column_sums");
}

TEST(EmulatedColumnSums, AreTheSameInEveryOrderOfThreads) {
  const Bits x = bell_bits(100 * 264, 1);
  Floats partials(static_cast<size_t>(kernels::column_sums_partials(100, 264)));
  Floats once(264);
  emulated(x.data(), 100, 264, 264, partials.data(), once.data());
  emulation::in_every_order(2, [&] {
    Floats again(264);
    emulated(x.data(), 100, 264, 264, partials.data(), again.data());
    EXPECT_EQ(again, once);
  });
}

}  // namespace
}  // namespace vitrail::testing
