#pragma once
/// Stacks that one OS thread can change between.

#include <cstddef>
#include <vector>

namespace emulation {

class Fiber {
 public:
  /// Memory for `count` stacks with an unmapped page below each; kept between blocks.
  static unsigned char* stack(size_t i);

  /// Makes the fiber begin in `entry` (which must never return) on stack `i` at its first switch.
  void prepare(size_t i, void (*entry)());
  /// Leaves the running context in `from` and goes on in `to`.
  static void change(Fiber& from, Fiber& to);

 private:
  void* stack_pointer_ = nullptr;
};

}  // namespace emulation
