#pragma once
// The part of CUDA C++ that the kernels use, for g++ (tests/emulation/emulator.h). Add what a kernel needs; leave out
// what cannot be emulated, so that it does not compile.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>  // before the macro __noinline__, an attribute in there
#include <type_traits>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static thread_local

#define threadIdx (::emulation::position.thread)
#define blockIdx (::emulation::position.block)
#define blockDim (::emulation::position.block_size)
#define gridDim (::emulation::position.grid_size)
constexpr int warpSize = 32;

// ---- vector types ----

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define EMULATED_VECTORS(name, type, align1, align2, align4)                  \
  struct name##1 {                                                            \
    type x;                                                                   \
  };                                                                          \
  struct alignas(align2) name##2 {                                            \
    type x, y;                                                                \
  };                                                                          \
  struct name##3 {                                                            \
    type x, y, z;                                                             \
  };                                                                          \
  struct alignas(align4) name##4 {                                            \
    type x, y, z, w;                                                          \
  };                                                                          \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTORS(char, signed char, 1, 2, 4)
EMULATED_VECTORS(uchar, unsigned char, 1, 2, 4)
EMULATED_VECTORS(short, short, 2, 4, 8)
EMULATED_VECTORS(ushort, unsigned short, 2, 4, 8)
EMULATED_VECTORS(int, int, 4, 8, 16)
EMULATED_VECTORS(uint, unsigned, 4, 8, 16)
EMULATED_VECTORS(float, float, 4, 8, 16)
EMULATED_VECTORS(double, double, 8, 16, 16)
EMULATED_VECTORS(longlong, long long, 8, 16, 16)
EMULATED_VECTORS(ulonglong, unsigned long long, 8, 16, 16)
#undef EMULATED_VECTORS

// ---- meeting others ----

inline void __syncthreads(emulation::Place place = emulation::Place::current()) {
  emulation::meet_block(place);
}
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu,
                       emulation::Place place = emulation::Place::current()) {
  emulation::meet_warp(
      "__syncwarp", mask, &mask, [](void* const*, uint32_t) {}, place);
}

namespace emulation {

template <class T>
struct Exchange {
  T value, result;
  unsigned source;
};

/// The value of lane `source`; a lane outside the mask has none, and the result is poison.
template <class T>
T exchange(const char* operation, uint32_t mask, T value, unsigned source, const Place& place) {
  Exchange<T> mine{value, value, source};
  meet_warp(
      operation, mask, &mine,
      [](void* const* lanes, uint32_t) {
        for (unsigned i = 0; i < 32; ++i) {
          if (lanes[i] == nullptr) continue;
          auto& lane = *static_cast<Exchange<T>*>(lanes[i]);
          if (lanes[lane.source] != nullptr)
            lane.result = static_cast<const Exchange<T>*>(lanes[lane.source])->value;
          else
            std::memset(static_cast<void*>(&lane.result), kPoison, sizeof(T));
        }
      },
      place);
  return mine.result;
}

inline unsigned lane_of_thread() {
  const Index& t = position.thread;
  const Index& size = position.block_size;
  return (t.x + size.x * (t.y + size.y * t.z)) % 32;
}

/// Word of one bit a lane, 1 where the condition holds.
inline uint32_t vote(const char* operation, uint32_t mask, bool holds, const Place& place) {
  struct Vote {
    bool holds;
    uint32_t votes;
  } mine{holds, 0};
  meet_warp(
      operation, mask, &mine,
      [](void* const* lanes, uint32_t) {
        uint32_t votes = 0;
        for (unsigned i = 0; i < 32; ++i)
          if (lanes[i] && static_cast<Vote*>(lanes[i])->holds) votes |= 1u << i;
        for (unsigned i = 0; i < 32; ++i)
          if (lanes[i]) static_cast<Vote*>(lanes[i])->votes = votes;
      },
      place);
  return mine.votes;
}

}  // namespace emulation

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              emulation::Place place = emulation::Place::current()) {
  const unsigned lane = emulation::lane_of_thread(), w = static_cast<unsigned>(width);
  return emulation::exchange("__shfl_sync", mask, value,
                             lane / w * w + static_cast<unsigned>(source) % w, place);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32,
                  emulation::Place place = emulation::Place::current()) {
  const unsigned lane = emulation::lane_of_thread(), w = static_cast<unsigned>(width);
  const unsigned source = lane ^ static_cast<unsigned>(bits);
  return emulation::exchange("__shfl_xor_sync", mask, value,
                             source < lane / w * w + w ? source : lane, place);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   emulation::Place place = emulation::Place::current()) {
  const unsigned lane = emulation::lane_of_thread(), w = static_cast<unsigned>(width);
  const unsigned source = lane + delta;
  return emulation::exchange("__shfl_down_sync", mask, value,
                             source < lane / w * w + w ? source : lane, place);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 emulation::Place place = emulation::Place::current()) {
  const unsigned lane = emulation::lane_of_thread(), w = static_cast<unsigned>(width);
  return emulation::exchange("__shfl_up_sync", mask, value,
                             lane >= lane / w * w + delta ? lane - delta : lane, place);
}
inline uint32_t __ballot_sync(uint32_t mask, bool holds,
                              emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__ballot_sync", mask, holds, place);
}
inline bool __any_sync(uint32_t mask, bool holds,
                       emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__any_sync", mask, holds, place) != 0;
}
inline bool __all_sync(uint32_t mask, bool holds,
                       emulation::Place place = emulation::Place::current()) {
  return emulation::vote("__all_sync", mask, holds, place) == mask;
}

namespace emulation {

template <class T, class Combine>
T reduce(const char* operation, uint32_t mask, T value, const Place& place) {
  T mine = value;
  meet_warp(
      operation, mask, &mine,
      [](void* const* lanes, uint32_t) {
        T total{};
        bool is_first = true;
        for (unsigned i = 0; i < 32; ++i) {
          if (!lanes[i]) continue;
          const T lane = *static_cast<T*>(lanes[i]);
          total = is_first ? lane : Combine()(total, lane);
          is_first = false;
        }
        for (unsigned i = 0; i < 32; ++i)
          if (lanes[i]) *static_cast<T*>(lanes[i]) = total;
      },
      place);
  return mine;
}
struct Larger {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Smaller {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

}  // namespace emulation

#define EMULATED_REDUCE(name, type, combine)                                       \
  inline type name(uint32_t mask, type value,                                      \
                   emulation::Place place = emulation::Place::current()) {         \
    return emulation::reduce<type, emulation::combine>(#name, mask, value, place); \
  }
EMULATED_REDUCE(__reduce_add_sync, uint32_t, Sum)
EMULATED_REDUCE(__reduce_add_sync, int32_t, Sum)
EMULATED_REDUCE(__reduce_max_sync, uint32_t, Larger)
EMULATED_REDUCE(__reduce_max_sync, int32_t, Larger)
EMULATED_REDUCE(__reduce_min_sync, uint32_t, Smaller)
EMULATED_REDUCE(__reduce_min_sync, int32_t, Smaller)
#undef EMULATED_REDUCE

inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- atomics: fibers change only at meetings, so plain code is atomic ----

#define EMULATED_ATOMIC(name, expression)           \
  template <class T>                                \
  T name(T* place, std::type_identity_t<T> value) { \
    const T old = *place;                           \
    *place = (expression);                          \
    return old;                                     \
  }
EMULATED_ATOMIC(atomicAdd, static_cast<T>(old + value))
EMULATED_ATOMIC(atomicSub, static_cast<T>(old - value))
EMULATED_ATOMIC(atomicMax, old > value ? old : value)
EMULATED_ATOMIC(atomicMin, old < value ? old : value)
EMULATED_ATOMIC(atomicOr, static_cast<T>(old | value))
EMULATED_ATOMIC(atomicAnd, static_cast<T>(old& value))
EMULATED_ATOMIC(atomicExch, value)
#undef EMULATED_ATOMIC
template <class T>
T atomicCAS(T* place, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *place;
  if (old == expected) *place = value;
  return old;
}

// ---- bits and arithmetic ----

inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline int32_t __float_as_int(float x) { return std::bit_cast<int32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int32_t x) { return std::bit_cast<float>(x); }
inline int __popc(uint32_t x) { return std::popcount(x); }
inline int __clz(int32_t x) { return std::countl_zero(static_cast<uint32_t>(x)); }
inline int __ffs(int32_t x) { return x == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(x)) + 1; }
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xFF) << (8 * i);
  return out;
}
inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
/// Of both halves as signed numbers: max(a + b mod 2^16, c, 0).
inline uint32_t __viaddmax_s16x2_relu(uint32_t a, uint32_t b, uint32_t c) {
  const auto half = [&](int shift) {
    const auto sum = static_cast<int16_t>((a >> shift) + (b >> shift));
    const auto least = std::max<int16_t>(static_cast<int16_t>(c >> shift), 0);
    return static_cast<uint32_t>(static_cast<uint16_t>(std::max(sum, least))) << shift;
  };
  return half(0) | half(16);
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// ---- loads and stores with a cache hint ----

template <class T>
T __ldg(const T* place) {
  return *place;
}
template <class T>
T __ldcs(const T* place) {
  return *place;
}
template <class T>
T __ldcg(const T* place) {
  return *place;
}
template <class T>
void __stcs(T* place, std::type_identity_t<T> value) {
  *place = value;
}
template <class T>
void __stcg(T* place, std::type_identity_t<T> value) {
  *place = value;
}

// ---- host calls: done at once ----

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? 132
               : static_cast<int>(emulation::kMostSharedBytes);
  return cudaSuccess;
}
