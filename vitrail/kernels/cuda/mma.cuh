#pragma once
// The only place of inline PTX: matrix products of a warp, their loads from shared memory, asynchronous copies, and
// the few conversions and functions that CUDA C++ has no name for. tests/emulation replaces this file on a CPU.
//
// Source   PTX ISA, the section of the instruction named beside each function; fragments: section "Matrix Fragments for
//          mma.m16n8k16 with floating point type".
// Notation lane = threadIdx % 32, g = lane / 4, t = lane % 4. A word is 32 bits and holds two 16-bit values, the one
//          with the smaller column (A, C, D) or row (B) in its low half.
//   A [16 x 16], 4 words   a0 = (g, 2t..), a1 = (g + 8, 2t..), a2 = (g, 2t + 8..), a3 = (g + 8, 2t + 8..): (row, columns)
//   B [16 x 8], 2 words    b0 = rows 2t, 2t + 1 of column g; b1 = rows 2t + 8, 2t + 9 of column g
//   C, D [16 x 8], 4 fp32  d0, d1 = (g, 2t), (g, 2t + 1); d2, d3 = (g + 8, 2t), (g + 8, 2t + 1)
// So D of one product, packed in pairs, is A of the next (two D of neighbouring columns make one A).
// All lanes of the warp must call a function marked [warp] together, all four warps of a warpgroup (128 threads from a
// multiple of 128 on) one marked [warpgroup].

#include <cstdint>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

/// [warp] d = a b + c, bf16 products, fp32 sums (mma). d may be c.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}

/// [warp] d = a b + c, f16 products, fp32 sums (mma). d may be c.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}

/// [warp] d = a b + c, f16 products and sums; d0 = (g, 2t..), d1 = (g + 8, 2t..) as words. d may be c.
__device__ __forceinline__ void mma_f16_sums(uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1, const uint32_t (&c)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1},{%2,%3,%4,%5},{%6,%7},{%8,%9};"
      : "=r"(d[0]), "=r"(d[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]));
}

/// Address of shared memory as ldmatrix and cp.async want it.
__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/// [warp] Loads N matrices of 8 x 8 16-bit values from shared memory (ldmatrix). `row` of lane i is where
/// row i % 8 of matrix i / 8 begins (8 values, 16-byte aligned; lanes from 8 N on may pass any valid address). Word j
/// of a lane holds columns 2t, 2t + 1 of row g of matrix j.
__device__ __forceinline__ void ldmatrix_x1(uint32_t (&words)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0},[%1];"
               : "=r"(words[0])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&words)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}
/// [warp] The same, each matrix transposed: word j of a lane holds rows 2t, 2t + 1 of column g of matrix j.
__device__ __forceinline__ void ldmatrix_x1_trans(uint32_t (&words)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0},[%1];"
               : "=r"(words[0])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&words)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Begins a copy of 16 bytes from global to shared memory, both 16-byte aligned (cp.async). The bytes are
/// there after cp_async_wait of this thread, and for other threads after a barrier behind it.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
/// The same of the first `bytes` (0 to 16) of them; the rest becomes 0. With 0, `global` is not read.
__device__ __forceinline__ void cp_async_16_or_zero(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
/// Makes one group of the copies begun since the last one.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most `Pending` of this thread's newest groups are unfinished.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, a multiple of 32 (barrier).
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0,%1;" ::"r"(id), "r"(threads) : "memory");
}

/// 2^x, relative error below 2^-22; results below 2^-126 become 0 (ex2).
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
/// tanh(x), relative error below 2^-10.9 (tanh).
__device__ __forceinline__ float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two values rounded to nearest even, `low` in the low half (cvt).
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0,%1,%2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
/// The halves of a word as floats, exactly.
__device__ __forceinline__ float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_bf16(uint32_t word) {
  return __uint_as_float(word & 0xFFFF0000u);
}
__device__ __forceinline__ float low_f16(uint32_t word) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
}
__device__ __forceinline__ float high_f16(uint32_t word) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16)));
}

/// a b + c, a b, a + b of both halves, rounded once (fma, mul, add of f16x2 and bf16x2).
__device__ __forceinline__ uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ __forceinline__ uint32_t mul_f16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.rn.f16x2 %0,%1,%2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ __forceinline__ uint32_t add_f16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("add.rn.f16x2 %0,%1,%2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ __forceinline__ uint32_t mul_bf16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.rn.bf16x2 %0,%1,%2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

// ---- barriers in shared memory, bulk copies ----

/// A barrier counts `arrivals` and then begins its next phase; phases are named by their parity, 0 first (mbarrier).
__device__ __forceinline__ void phase_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0],%1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
/// Makes barriers just initialised and shared memory just written known to copies and products; a __syncthreads of all
/// writers must follow before these begin (fence.mbarrier_init, fence.proxy.async).
__device__ __forceinline__ void phase_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void phase_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _,[%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Waits for the end of the newest phase of this parity.
__device__ __forceinline__ void phase_wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{.reg .pred p;\n"
      "again%=: mbarrier.try_wait.parity.shared.b64 p,[%0],%1;\n"
      "@!p bra again%=;\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
/// Arrives at the barrier and begins a copy of `bytes` (a multiple of 16, both ends aligned to 16) from global to shared
/// memory; the phase ends when the bytes are there, too (cp.async.bulk).
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, int bytes,
                                          uint64_t* barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _,[%0],%1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1],%2,[%3];" ::"r"(
          shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// ---- products of a warpgroup ----
//
// d [64 x n] += a [64 x 16] b [16 x n]; a and d in registers, b in shared memory. Warp w of the warpgroup holds rows 16 w
// to 16 w + 15 of a as above, and of d for every 8 columns the four values of D above.

/// b [16 x n] in shared memory: columns in groups of 8 that lie `group_bytes` apart (0: all alike); a group is two times
/// 128 bytes, for rows 0-7 and 8-15: 8 columns of 8 values each.
struct SharedMatrix {
  uint64_t descriptor;
  /// The same, `bytes` (a multiple of 16) further on.
  __device__ __forceinline__ SharedMatrix at(int bytes) const {
    return {descriptor + static_cast<uint64_t>(bytes / 16)};
  }
};
__device__ __forceinline__ SharedMatrix shared_matrix(const void* shared, int group_bytes) {
  return {static_cast<uint64_t>((shared_address(shared) >> 4) & 0x3FFF) | uint64_t{128 / 16} << 16 |
          static_cast<uint64_t>(group_bytes / 16) << 32};
}

/// Between the last write of registers and the products that read them (wgmma.fence).
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// [warpgroup] Waits for all products begun: their sums may be read, their operands written.
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
/// Keeps the compiler from moving uses of these registers across: needed behind every wait and before every fence.
template <int kCount>
__device__ __forceinline__ void wgmma_pin(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void wgmma_pin(uint32_t (&x)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
}

#define VITRAIL_FLOATS_8(d, i)                                                                \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define VITRAIL_FLOATS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
// Operand numbers: the sums, then four words of a, the descriptor, whether to add.
#define VITRAIL_WGMMA(columns, sums, a0, a1, a2, a3, b, add, ...)                           \
  /** [warpgroup] Begins d = a b (is_sum: d + a b), f16 products, fp32 sums (wgmma). */     \
  __device__ __forceinline__ void wgmma_f16(float(&d)[columns / 2], const uint32_t(&a)[4],  \
                                            const SharedMatrix& matrix, bool is_sum) {      \
    asm volatile("{.reg .pred p;\nsetp.ne.b32 p,%" #add                                     \
                 ",0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.f16.f16 {" sums \
                 "},{%" #a0 ",%" #a1 ",%" #a2 ",%" #a3 "},%" #b ",p,1,1,0;\n}"              \
                 : __VA_ARGS__                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(matrix.descriptor),      \
                   "r"(static_cast<int>(is_sum)));                                          \
  }
#define VITRAIL_SUMS_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define VITRAIL_SUMS_12 VITRAIL_SUMS_8 ",%8,%9,%10,%11"
#define VITRAIL_SUMS_16 VITRAIL_SUMS_12 ",%12,%13,%14,%15"
#define VITRAIL_SUMS_20 VITRAIL_SUMS_16 ",%16,%17,%18,%19"
VITRAIL_WGMMA(16, VITRAIL_SUMS_8, 8, 9, 10, 11, 12, 13, VITRAIL_FLOATS_8(d, 0))
VITRAIL_WGMMA(24, VITRAIL_SUMS_12, 12, 13, 14, 15, 16, 17, VITRAIL_FLOATS_8(d, 0),
              VITRAIL_FLOATS_4(d, 8))
VITRAIL_WGMMA(32, VITRAIL_SUMS_16, 16, 17, 18, 19, 20, 21, VITRAIL_FLOATS_8(d, 0),
              VITRAIL_FLOATS_8(d, 8))
VITRAIL_WGMMA(40, VITRAIL_SUMS_20, 20, 21, 22, 23, 24, 25, VITRAIL_FLOATS_8(d, 0),
              VITRAIL_FLOATS_8(d, 8), VITRAIL_FLOATS_4(d, 16))
#undef VITRAIL_SUMS_8
#undef VITRAIL_SUMS_12
#undef VITRAIL_SUMS_16
#undef VITRAIL_SUMS_20
#undef VITRAIL_WGMMA
#undef VITRAIL_FLOATS_4
#undef VITRAIL_FLOATS_8

/// Two values as numbers of 8 bits (kernels/fp8.h), `low` in the low byte (cvt).
template <Fp8 kFormat>
__device__ __forceinline__ uint32_t pack_fp8(float low, float high) {
  uint16_t codes;
  if constexpr (kFormat == Fp8::e4m3)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0,%1,%2;" : "=h"(codes) : "f"(high), "f"(low));
  else
    asm("cvt.rn.satfinite.e5m2x2.f32 %0,%1,%2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
}
/// Two such numbers as f16, exactly, and back.
template <Fp8 kFormat>
__device__ __forceinline__ uint32_t f16_of_fp8(uint32_t codes) {
  uint32_t word;
  const auto two = static_cast<uint16_t>(codes);
  if constexpr (kFormat == Fp8::e4m3)
    asm("cvt.rn.f16x2.e4m3x2 %0,%1;" : "=r"(word) : "h"(two));
  else
    asm("cvt.rn.f16x2.e5m2x2 %0,%1;" : "=r"(word) : "h"(two));
  return word;
}
template <Fp8 kFormat>
__device__ __forceinline__ uint32_t fp8_of_f16(uint32_t word) {
  uint16_t codes;
  if constexpr (kFormat == Fp8::e4m3)
    asm("cvt.rn.satfinite.e4m3x2.f16x2 %0,%1;" : "=h"(codes) : "r"(word));
  else
    asm("cvt.rn.satfinite.e5m2x2.f16x2 %0,%1;" : "=h"(codes) : "r"(word));
  return codes;
}

}  // namespace vitrail::kernels
