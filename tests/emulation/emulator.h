#pragma once
/// Runs CUDA kernels on a CPU: a grid block after block, the threads of a block as fibers of one OS thread.
///
/// A fiber runs until it must meet others (barrier, shuffle, matrix product) or ends, so two threads are never within
/// the same stretch of code at once, but the order in which they run is ours to choose (Order).
/// Finds    barriers that not all threads of the block reach, warp operations with lanes missing, values read from
///          shared memory that nobody wrote (NaN), asynchronous copies read before they were waited for, dynamic shared
///          memory overrun; and, by running in several orders, results that depend on the order (races).
/// Errors   core::Error out of launch(), naming block, thread and place.
/// Threads  one launch at a time.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <source_location>
#include <string>
#include <vector>

namespace emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

/// Order in which the threads of a block run whenever several can.
struct Order {
  enum Kind { ascending, descending, shuffled } kind = ascending;
  uint64_t seed = 1;
};
void set_order(Order order);

/// Calls `work` in ascending, descending and `shuffles` shuffled orders: a result that differs shows a race.
void in_every_order(int shuffles, const std::function<void()>& work);

/// What uninitialised shared memory is filled with: NaN as fp32, bf16, f16 and fp64.
constexpr unsigned char kPoison = 0xFF;
/// Shared memory of one block of the emulated GPU (H100, H200).
constexpr size_t kMostSharedBytes = 227 * 1024;

struct Extent {
  Index blocks, threads;
  size_t shared_bytes = 0;
};
void run_grid(const Extent& extent, const std::function<void()>& thread_body);

// ---- for the shadow headers ----

using Place = std::source_location;

/// threadIdx, blockIdx, blockDim, gridDim of the running thread.
struct Position {
  Index thread, block, block_size, grid_size;
};
extern Position position;

/// Ends the launch with this error; does not return to the kernel.
[[noreturn]] void fail(std::string what, const Place& place);

/// Waits for all threads of the block.
void meet_block(const Place& place);
/// Waits for `threads` threads of the block at barrier `id`.
void meet_named(int id, int threads, const Place& place);

/// Waits for the lanes of `mask`; the last one calls action(operands, mask), operands[lane] being what that lane
/// passed (null for lanes outside the mask).
using Action = void (*)(void* const* operands, uint32_t mask);
void meet_warp(const char* operation, uint32_t mask, void* operand, Action action,
               const Place& place);

unsigned char* dynamic_shared_memory();
/// Throws unless the bytes lie in the shared memory of the block and are 16-byte aligned.
void check_shared(const void* pointer, size_t bytes, const Place& place);

void begin_copy(void* shared, const void* global, int bytes, const Place& place);
void commit_copies();
void wait_copies(int pending);

/// Barriers in shared memory that bulk copies report to. A copy happens when somebody waits for its phase.
void init_phase(const void* barrier, int arrivals, const Place& place);
void arrive_at_phase(const void* barrier, const Place& place);
void wait_for_phase(const void* barrier, int parity, const Place& place);
void copy_in_phase(const void* barrier, void* shared, const void* global, int bytes,
                   const Place& place);

/// A product of a warpgroup, one lane's part: begun, not awaited.
struct Product {
  float* d;
  unsigned columns;
  uint32_t a[4];
  const unsigned char* b;  // shared
  size_t group_bytes;      // from 8 columns of b to the next
};
/// Those of the running thread, oldest first. Their sums are taken from `d` when begun and lie here until the wait.
struct Products {
  std::vector<Product> begun;
  std::map<float*, std::vector<float>> sums;
  size_t committed = 0;
};
Products& products();

}  // namespace emulation
