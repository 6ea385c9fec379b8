#pragma once
/// Runs one task on any implementation of a kernel: the plain loop, the emulated kernel, the kernel on a GPU.
///
/// A case fills a task with pointers from `Memory`, calls the candidate and reads the results back; the same code for
/// all candidates, so that tests/emulation and tests/gpu hold the same cases.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/core/philox.h"
#include "vitrail/kernels/bf16.h"

namespace vitrail::testing {

/// Where a candidate's data lives.
class Memory {
 public:
  virtual ~Memory() = default;
  /// `bytes` bytes, 16-byte aligned, that live as long as this object.
  virtual void* allocate(size_t bytes) = 0;
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;

  /// A copy of the values; null for none.
  template <class T>
  T* put(const std::vector<T>& values) {
    if (values.empty()) return nullptr;
    T* const place = static_cast<T*>(allocate(values.size() * sizeof(T)));
    upload(place, values.data(), values.size() * sizeof(T));
    return place;
  }
  template <class T>
  std::vector<T> get(const T* place, int64_t count) {
    std::vector<T> values(place ? static_cast<size_t>(count) : 0);
    if (place) download(values.data(), place, values.size() * sizeof(T));
    return values;
  }
};

class HostMemory : public Memory {
 public:
  void* allocate(size_t bytes) override {
    // Exactly so many bytes: a sanitizer sees what goes beyond.
    blocks_.emplace_back(static_cast<unsigned char*>(std::malloc(std::max<size_t>(bytes, 1))),
                         &std::free);
    return blocks_.back().get();
  }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  std::vector<std::unique_ptr<unsigned char, decltype(&std::free)>> blocks_;
};

using Bits = std::vector<uint16_t>;
using Floats = std::vector<float>;

/// Values of a bell shape about `mean`, reproducible; `stream` tells tensors of a case apart.
inline Floats bell(int64_t count, uint16_t stream, float deviation = 1.0f, float mean = 0.0f) {
  Floats values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = core::draw4({11, core::Stream::test, 0, stream}, 0, static_cast<uint32_t>(i));
    float sum = -2.0f;
    for (const uint32_t x : bits.x) sum += core::to_uniform(x);
    values[static_cast<size_t>(i)] = mean + deviation * sum * 1.7320508f;
  }
  return values;
}
inline Bits rounded(const Floats& values) {
  Bits bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), kernels::to_bf16);
  return bits;
}
inline Bits bell_bits(int64_t count, uint16_t stream, float deviation = 1.0f, float mean = 0.0f) {
  return rounded(bell(count, stream, deviation, mean));
}
inline Floats widened(const Bits& bits) {
  Floats values(bits.size());
  std::transform(bits.begin(), bits.end(), values.begin(), kernels::from_bf16);
  return values;
}

/// Distance of two bf16 in units in the last place; a large number when exactly one is NaN.
inline int64_t bf16_distance(uint16_t a, uint16_t b) {
  const bool a_nan = (a & 0x7FFFu) > 0x7F80u, b_nan = (b & 0x7FFFu) > 0x7F80u;
  if (a_nan || b_nan) return a_nan && b_nan ? 0 : INT32_MAX;
  const auto ordered = [](uint16_t x) {
    return x & 0x8000u ? -static_cast<int64_t>(x & 0x7FFFu) : static_cast<int64_t>(x);
  };
  return std::llabs(ordered(a) - ordered(b));
}

/// The worst of many comparisons; printed at the end of a test.
struct Worst {
  int64_t ulps = 0;      // of results in bf16
  double different = 0;  // largest share of results in one tensor that are not equal to the bit
  double sums = 0;       // of fp32 sums, relative to the largest sum of the tensor
  void print(const char* what) const {
    std::printf(
        "%-34s worst bf16 distance %ld ulp, at most %.2g of a tensor differs; sums %.1e (allowed 1 "
        "ulp, 1e-5)\n",
        what, static_cast<long>(ulps), different, sums);
  }
};

/// Results in bf16: rounding once from fp32 values that differ by a few fp32 roundings gives neighbours at most, except
/// where terms cancel: there a difference of 1e-6 of the largest value counts as none.
inline void expect_close(const Bits& expected, const Bits& actual, const std::string& what,
                         Worst& worst) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  float largest = 0;
  for (const uint16_t bits : expected)
    largest = std::fmax(largest, std::fabs(kernels::from_bf16(bits)));
  int64_t different = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const int64_t ulps = bf16_distance(expected[i], actual[i]);
    different += ulps > 0;
    const float a = kernels::from_bf16(expected[i]), b = kernels::from_bf16(actual[i]);
    if (ulps > 1 && std::fabs(a - b) <= 1e-6f * largest) continue;
    worst.ulps = std::max(worst.ulps, ulps);
    ASSERT_LE(ulps, 1) << what << "[" << i << "]: " << a << " and " << b;
  }
  if (!expected.empty())
    worst.different = std::max(
        worst.different, static_cast<double>(different) / static_cast<double>(expected.size()));
}

/// Sums in fp32 against sums in fp64: relative to the largest sum of the tensor, since sums may cancel.
inline void expect_close(const Floats& expected, const Floats& actual, const std::string& what,
                         Worst& worst) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  double largest = 1e-30;
  for (const float value : expected) largest = std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(expected[i]) - actual[i]) / largest;
    ASSERT_LE(error, 1e-5) << what << "[" << i << "]: " << expected[i] << " and " << actual[i];
    worst.sums = std::max(worst.sums, error);
  }
}

}  // namespace vitrail::testing
