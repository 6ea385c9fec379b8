#pragma once
// Stands for vitrail/kernels/cuda/mma.cuh in emulated kernels: same functions, same fragment layouts (documented
// there), computed by the last lane that arrives. Sums are exact and rounded once.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

inline float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
inline float high_bf16(uint32_t word) { return __uint_as_float(word & 0xFFFF0000u); }
inline float low_f16(uint32_t word) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
}
inline float high_f16(uint32_t word) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16)));
}
inline uint32_t emulated_word(unsigned short low, unsigned short high) {
  return static_cast<uint32_t>(high) << 16 | low;
}
inline uint32_t pack_bf16(float low, float high) {
  return emulated_word(to_bf16(low), to_bf16(high));
}
inline uint32_t pack_f16(float low, float high) {
  return emulated_word(__float2half_rn(low).bits, __float2half_rn(high).bits);
}

namespace emulated {

struct Product {
  const uint32_t* a;
  uint32_t b[2];
  const float* c;
  float d[4];
};

template <bool kIsBf16>
float half_of(uint32_t word, unsigned high) {
  return kIsBf16 ? (high ? high_bf16(word) : low_bf16(word))
                 : (high ? high_f16(word) : low_f16(word));
}

template <bool kIsBf16>
void multiply(void* const* lanes, uint32_t) {
  double a[16][16], b[16][8], sums[16][8];
  for (unsigned lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const Product*>(lanes[lane]);
    const unsigned g = lane / 4, t = lane % 4;
    for (unsigned high = 0; high < 2; ++high) {
      for (unsigned word = 0; word < 4; ++word)
        a[g + word % 2 * 8][2 * t + word / 2 * 8 + high] = half_of<kIsBf16>(mine.a[word], high);
      for (unsigned word = 0; word < 2; ++word) {
        b[2 * t + word * 8 + high][g] = half_of<kIsBf16>(mine.b[word], high);
        sums[g + word * 8][2 * t + high] = mine.c[2 * word + high];
      }
    }
  }
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned k = 0; k < 16; ++k)
      for (unsigned column = 0; column < 8; ++column) sums[row][column] += a[row][k] * b[k][column];
  for (unsigned lane = 0; lane < 32; ++lane) {
    auto& mine = *static_cast<Product*>(lanes[lane]);
    for (unsigned i = 0; i < 4; ++i)
      mine.d[i] = static_cast<float>(sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
  }
}

template <bool kIsBf16>
void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4],
         const char* name, const emulation::Place& place) {
  Product product{a, {b0, b1}, c, {}};
  emulation::meet_warp(name, 0xFFFFFFFFu, &product, multiply<kIsBf16>, place);
  for (int i = 0; i < 4; ++i) d[i] = product.d[i];
}

struct Rows {
  const void* row;
  uint32_t* words;
  emulation::Place place;
};

template <unsigned kMatrices, bool kTransposed>
void load(void* const* lanes, uint32_t) {
  const auto of = [&](unsigned lane) -> const Rows& { return *static_cast<Rows*>(lanes[lane]); };
  for (unsigned matrix = 0; matrix < kMatrices; ++matrix) {
    unsigned short values[8][8];
    for (unsigned row = 0; row < 8; ++row) {
      const Rows& from = of(matrix * 8 + row);
      std::memcpy(values[row], from.row, 16);
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned g = lane / 4, t = lane % 4;
      of(lane).words[matrix] = kTransposed ? emulated_word(values[2 * t][g], values[2 * t + 1][g])
                                           : emulated_word(values[g][2 * t], values[g][2 * t + 1]);
    }
  }
}

template <unsigned kMatrices, bool kTransposed>
void ldmatrix(uint32_t (&words)[kMatrices], const void* row, const char* name,
              const emulation::Place& place) {
  if (emulation::lane_of_thread() < 8 * kMatrices) emulation::check_shared(row, 16, place);
  Rows rows{row, words, place};
  emulation::meet_warp(name, 0xFFFFFFFFu, &rows, load<kMatrices, kTransposed>, place);
}

}  // namespace emulated

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     const float (&c)[4], emulation::Place place = emulation::Place::current()) {
  emulated::mma<true>(d, a, b0, b1, c, "mma_bf16", place);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    const float (&c)[4], emulation::Place place = emulation::Place::current()) {
  emulated::mma<false>(d, a, b0, b1, c, "mma_f16", place);
}
inline void mma_f16_sums(uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         const uint32_t (&c)[2],
                         emulation::Place place = emulation::Place::current()) {
  const float wide[4] = {low_f16(c[0]), high_f16(c[0]), low_f16(c[1]), high_f16(c[1])};
  float sums[4];
  emulated::mma<false>(sums, a, b0, b1, wide, "mma_f16_sums", place);
  d[0] = pack_f16(sums[0], sums[1]);
  d[1] = pack_f16(sums[2], sums[3]);
}

#define EMULATED_LDMATRIX(name, matrices, transposed)                      \
  inline void name(uint32_t(&words)[matrices], const void* row,            \
                   emulation::Place place = emulation::Place::current()) { \
    emulated::ldmatrix<matrices, transposed>(words, row, #name, place);    \
  }
EMULATED_LDMATRIX(ldmatrix_x1, 1, false)
EMULATED_LDMATRIX(ldmatrix_x2, 2, false)
EMULATED_LDMATRIX(ldmatrix_x4, 4, false)
EMULATED_LDMATRIX(ldmatrix_x1_trans, 1, true)
EMULATED_LDMATRIX(ldmatrix_x2_trans, 2, true)
EMULATED_LDMATRIX(ldmatrix_x4_trans, 4, true)
#undef EMULATED_LDMATRIX

inline void cp_async_16(void* shared, const void* global,
                        emulation::Place place = emulation::Place::current()) {
  emulation::begin_copy(shared, global, 16, place);
}
inline void cp_async_16_or_zero(void* shared, const void* global, int bytes,
                                emulation::Place place = emulation::Place::current()) {
  emulation::begin_copy(shared, global, bytes, place);
}
inline void cp_async_commit() { emulation::commit_copies(); }
template <int Pending>
void cp_async_wait() {
  emulation::wait_copies(Pending);
}

inline void named_barrier(int id, int threads,
                          emulation::Place place = emulation::Place::current()) {
  emulation::meet_named(id, threads, place);
}

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}
inline float tanh_approx(float x) { return std::tanh(x); }

inline uint32_t emulated_halves(double low, double high) {
  return emulated_word(emulated_half(low).bits, emulated_half(high).bits);
}
inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
  return emulated_halves(static_cast<double>(low_f16(a)) * low_f16(b) + low_f16(c),
                         static_cast<double>(high_f16(a)) * high_f16(b) + high_f16(c));
}
inline uint32_t mul_f16x2(uint32_t a, uint32_t b) {
  return emulated_halves(static_cast<double>(low_f16(a)) * low_f16(b),
                         static_cast<double>(high_f16(a)) * high_f16(b));
}
inline uint32_t add_f16x2(uint32_t a, uint32_t b) {
  return emulated_halves(static_cast<double>(low_f16(a)) + low_f16(b),
                         static_cast<double>(high_f16(a)) + high_f16(b));
}
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  return pack_bf16(std::fma(low_bf16(a), low_bf16(b), low_bf16(c)),
                   std::fma(high_bf16(a), high_bf16(b), high_bf16(c)));
}
inline uint32_t mul_bf16x2(uint32_t a, uint32_t b) {
  return pack_bf16(low_bf16(a) * low_bf16(b), high_bf16(a) * high_bf16(b));
}

template <Fp8 kFormat>
uint32_t pack_fp8(float low, float high) {
  return static_cast<uint32_t>(to_fp8(kFormat, high)) << 8 | to_fp8(kFormat, low);
}
template <Fp8 kFormat>
uint32_t f16_of_fp8(uint32_t codes) {
  return pack_f16(from_fp8(kFormat, static_cast<uint8_t>(codes)),
                  from_fp8(kFormat, static_cast<uint8_t>(codes >> 8)));
}
template <Fp8 kFormat>
uint32_t fp8_of_f16(uint32_t word) {
  return pack_fp8<kFormat>(low_f16(word), high_f16(word));
}

// ---- barriers in shared memory, bulk copies ----

inline void phase_init(uint64_t* barrier, int arrivals,
                       emulation::Place place = emulation::Place::current()) {
  emulation::init_phase(barrier, arrivals, place);
}
inline void phase_publish() {}
inline void phase_arrive(uint64_t* barrier, emulation::Place place = emulation::Place::current()) {
  emulation::arrive_at_phase(barrier, place);
}
inline void phase_wait(uint64_t* barrier, int parity,
                       emulation::Place place = emulation::Place::current()) {
  emulation::wait_for_phase(barrier, parity, place);
}
inline void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier,
                      emulation::Place place = emulation::Place::current()) {
  emulation::copy_in_phase(barrier, shared, global, bytes, place);
}

// ---- products of a warpgroup: each warp's rows on their own, computed at the wait; until then the sums are NaN ----

struct SharedMatrix {
  const unsigned char* matrix;
  size_t group_bytes;
  SharedMatrix at(int bytes) const { return {matrix + bytes, group_bytes}; }
};
inline SharedMatrix shared_matrix(const void* shared, int group_bytes) {
  return {static_cast<const unsigned char*>(shared), static_cast<size_t>(group_bytes)};
}

namespace emulated {

/// One product of a warp, its lanes' parts and sums given: rows 16, columns as many as it has.
inline void multiply_shared(const emulation::Product* const (&lanes)[32],
                            float* const (&sums)[32]) {
  const emulation::Product& any = *lanes[0];
  for (unsigned column = 0; column < any.columns; ++column) {
    const unsigned char* const group = any.b + column / 8 * any.group_bytes + column % 8 * 16;
    double b[16];
    for (unsigned k = 0; k < 16; ++k) {
      unsigned short bits;
      std::memcpy(&bits, group + k / 8 * 128 + k % 8 * 2, 2);
      b[k] = static_cast<double>(__half2float(__ushort_as_half(bits)));
    }
    for (unsigned row = 0; row < 16; ++row) {
      const unsigned lane = row % 8 * 4 + column % 8 / 2;
      float& sum = sums[lane][column / 8 * 4 + row / 8 * 2 + column % 2];
      double total = static_cast<double>(sum);
      for (unsigned k = 0; k < 16; ++k) {
        const uint32_t word = lanes[row % 8 * 4 + k % 8 / 2]->a[row / 8 + k / 8 * 2];
        total += static_cast<double>(half_of<false>(word, k % 2)) * b[k];
      }
      sum = static_cast<float>(total);
    }
  }
}

inline void finish_products(void* const* operands, uint32_t) {
  const auto of = [&](unsigned lane) -> emulation::Products& {
    return *static_cast<emulation::Products*>(operands[lane]);
  };
  for (size_t i = 0; i < of(0).begun.size(); ++i) {
    const emulation::Product* lanes[32];
    float* sums[32];
    for (unsigned lane = 0; lane < 32; ++lane) {
      lanes[lane] = &of(lane).begun.at(i);
      sums[lane] = of(lane).sums.at(lanes[lane]->d).data();
    }
    multiply_shared(lanes, sums);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (const auto& [d, values] : of(lane).sums) std::copy(values.begin(), values.end(), d);
    of(lane) = {};
  }
}

}  // namespace emulated

inline void wgmma_fence() {}
inline void wgmma_commit() { emulation::products().committed = emulation::products().begun.size(); }
inline void wgmma_wait(emulation::Place place = emulation::Place::current()) {
  emulation::Products& mine = emulation::products();
  if (mine.committed != mine.begun.size())
    emulation::fail("products must be committed before the wait", place);
  emulation::meet_warp("wgmma_wait", 0xFFFFFFFFu, &mine, emulated::finish_products, place);
}
template <class T>
void wgmma_pin(T&) {}

template <size_t kCount>
void wgmma_f16(float (&d)[kCount], const uint32_t (&a)[4], const SharedMatrix& matrix, bool is_sum,
               emulation::Place place = emulation::Place::current()) {
  static_assert(kCount % 4 == 0, "columns in groups of 8");
  const size_t groups = kCount / 4;
  emulation::check_shared(matrix.matrix, (groups - 1) * matrix.group_bytes + 256, place);
  emulation::Products& mine = emulation::products();
  std::vector<float>& sums = mine.sums[d];
  if (!is_sum)
    sums.assign(kCount, 0.0f);
  else if (sums.empty())
    sums.assign(d, d + kCount);
  std::memset(d, emulation::kPoison, sizeof d);
  mine.begun.push_back({d,
                        static_cast<unsigned>(kCount * 2),
                        {a[0], a[1], a[2], a[3]},
                        matrix.matrix,
                        matrix.group_bytes});
}

}  // namespace vitrail::kernels
