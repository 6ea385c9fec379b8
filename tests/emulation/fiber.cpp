#include "fiber.h"

#include <cstdint>
#include <new>

#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "tests/emulation/fiber.cpp knows how to change stacks on x86_64 and aarch64 only"
#endif

extern "C" __attribute__((visibility("hidden"))) void vitrail_change_stack(void** save, void* load);

// Saves what a called function must keep (System V and AAPCS64), then changes the stack pointer.
#if defined(__x86_64__)
asm(R"(
.text
.globl vitrail_change_stack
.hidden vitrail_change_stack
.type vitrail_change_stack,@function
vitrail_change_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vitrail_change_stack,.-vitrail_change_stack
)");
#else
asm(R"(
.text
.globl vitrail_change_stack
.hidden vitrail_change_stack
.type vitrail_change_stack,%function
vitrail_change_stack:
  sub sp,sp,#160
  stp x19,x20,[sp]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x9,sp
  str x9,[x0]
  mov sp,x1
  ldp x19,x20,[sp]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
.size vitrail_change_stack,.-vitrail_change_stack
)");
#endif

namespace emulation {
namespace {

constexpr size_t kPage = 4096, kStackBytes = 256 * 1024;
constexpr size_t kMostStacks = 1024;

unsigned char* map_stacks() {
  void* const memory = mmap(nullptr, kMostStacks * kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* const stacks = static_cast<unsigned char*>(memory);
  for (size_t i = 0; i < kMostStacks; ++i) mprotect(stacks + i * kStackBytes, kPage, PROT_NONE);
  return stacks;
}

}  // namespace

unsigned char* Fiber::stack(size_t i) {
  static unsigned char* const stacks = map_stacks();
  return stacks + i * kStackBytes;
}

void Fiber::prepare(size_t i, void (*entry)()) {
  auto* const top = reinterpret_cast<uintptr_t*>(stack(i) + kStackBytes);
#if defined(__x86_64__)
  // Six registers, then the address to return to; a function begins with the stack 8 bytes past a multiple of 16.
  uintptr_t* const frame = top - 8;
  for (int r = 0; r < 8; ++r) frame[r] = 0;
  frame[6] = reinterpret_cast<uintptr_t>(entry);
#else
  uintptr_t* const frame = top - 20;
  for (int r = 0; r < 20; ++r) frame[r] = 0;
  frame[11] = reinterpret_cast<uintptr_t>(entry);  // x30
#endif
  stack_pointer_ = frame;
}

void Fiber::change(Fiber& from, Fiber& to) {
  vitrail_change_stack(&from.stack_pointer_, to.stack_pointer_);
}

}  // namespace emulation
