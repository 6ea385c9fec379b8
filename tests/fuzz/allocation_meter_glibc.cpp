// The allocator's functions in front of glibc's own, so that libraries written in C are counted too.

#include <atomic>
#include <cerrno>
#include <cstddef>

#include <malloc.h>

#include "tests/fuzz/allocation_meter.h"

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}

namespace {

std::atomic<int64_t> held{0}, most{0};

void add(void* memory) {
  if (memory == nullptr) return;
  const int64_t now = held += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t before = most.load();
  while (now > before && !most.compare_exchange_weak(before, now)) {
  }
}

void remove(void* memory) {
  if (memory != nullptr) held -= static_cast<int64_t>(malloc_usable_size(memory));
}

bool is_too_much(size_t bytes) {
  return bytes > static_cast<size_t>(vitrail::testing::kMostBytesAtOnce);
}

void* counted(void* memory) {
  add(memory);
  return memory;
}

}  // namespace

extern "C" {
void* malloc(size_t bytes) { return is_too_much(bytes) ? nullptr : counted(__libc_malloc(bytes)); }
void* calloc(size_t n, size_t bytes) {
  size_t all = 0;
  if (__builtin_mul_overflow(n, bytes, &all) || is_too_much(all)) return nullptr;
  return counted(__libc_calloc(n, bytes));
}
void* realloc(void* memory, size_t bytes) {
  if (is_too_much(bytes)) return nullptr;
  remove(memory);
  void* const moved = __libc_realloc(memory, bytes);
  add(moved == nullptr && bytes > 0 ? memory : moved);
  return moved;
}
void* memalign(size_t alignment, size_t bytes) {
  return is_too_much(bytes) ? nullptr : counted(__libc_memalign(alignment, bytes));
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  void* const found = memalign(alignment, bytes);
  if (found == nullptr) return ENOMEM;
  *memory = found;
  return 0;
}
void free(void* memory) {
  remove(memory);
  __libc_free(memory);
}
}

namespace vitrail::testing {

void start_meter() {
  held = 0;
  most = 0;
}

int64_t peak_bytes() { return most; }

}  // namespace vitrail::testing
