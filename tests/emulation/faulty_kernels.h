#pragma once
/// Small kernels, right and wrong, that show what the emulator finds. Each adds up or moves `threads` values.

#include <cstdint>

namespace emulation {

/// out[i] = in[n - 1 - i] through shared memory; the barrier between writing and reading may be left out.
void reverse(const float* in, float* out, int threads, bool has_barrier);
/// The same with dynamic shared memory of `bytes` bytes, which may be too few.
void reverse_dynamic(const float* in, float* out, int threads, int bytes);
/// Every thread adds 1 to its right neighbour's value in turn, `rounds` times; without the second barrier a fast
/// thread overwrites what a slow one has not read.
void pass_on(float* values, int threads, int rounds, bool has_second_barrier);
/// Threads below `stop` leave before the barrier.
void leave_early(float* out, int threads, int stop);
/// Odd threads wait at another barrier than even ones.
void divergent(float* out, int threads);
/// Lanes below `lanes` add up over the whole warp.
void partial_warp_sum(float* out, int lanes);
/// Copies 32 x 16 bytes asynchronously; waits for them or not, and for the other threads or not.
void copy_async(const float* in, float* out, bool waits, bool has_barrier);
/// c [16, 8] = a [16, 16] b [16, 8] of bf16 bits, row-major: ldmatrix and one product.
void multiply_tile(const uint16_t* a, const uint16_t* b, float* c);
/// Two halves of a block, each at its own named barrier, reverse their part.
void reverse_halves(const float* in, float* out);
/// Reverses 128 values that thread 0 of 32 copies in bulk, at a barrier that counts `arrivals`; threads wait or not.
void copy_bulk(const float* in, float* out, bool waits, int arrivals);
/// c [64, 16] = a [64, 16] b [16, 16] of f16 bits, a and c row-major, b as SharedMatrix: one product of a warpgroup.
void multiply_panel(const uint16_t* a, const uint16_t* b, float* c, bool waits);
/// out[i] = what a block of `threads` threads finds in shared memory that it did not write.
void read_unwritten(float* out, int threads);

}  // namespace emulation
