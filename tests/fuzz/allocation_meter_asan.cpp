// The same under AddressSanitizer, which has its own allocator.

#include <atomic>
#include <cstddef>

#include "tests/fuzz/allocation_meter.h"

// As in sanitizer/allocator_interface.h, which clang ships and GCC does not.
extern "C" {
size_t __sanitizer_get_allocated_size(const volatile void* memory);
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                              void (*on_free)(const volatile void*));
}

namespace {

std::atomic<int64_t> held{0}, most{0};

void on_malloc(const volatile void*, size_t bytes) {
  const int64_t now = held += static_cast<int64_t>(bytes);
  int64_t before = most.load();
  while (now > before && !most.compare_exchange_weak(before, now)) {
  }
}

void on_free(const volatile void* memory) {
  if (memory != nullptr) held -= static_cast<int64_t>(__sanitizer_get_allocated_size(memory));
}

}  // namespace

/// LibTorch is not built with the sanitizer and keeps what it allocates at its start.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=512:detect_leaks=0:"
         "detect_container_overflow=0";
}

namespace vitrail::testing {

void start_meter() {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  (void)installed;
  held = 0;
  most = 0;
}

int64_t peak_bytes() { return most; }

}  // namespace vitrail::testing
