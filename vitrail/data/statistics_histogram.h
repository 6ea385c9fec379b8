#pragma once
/// How often each value occurs, in bounded memory and whatever the order they come in.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace vitrail::data {

/// Counts of finite floats: exact up to kMaxBins different values, so always for bytes and 16-bit
/// integers; beyond that of bins of neighbouring floats, as narrow as kMaxBins allow. The bins are a
/// function of the values alone: adding in another order or in parts that are merged changes nothing.
///
/// Error    a percentile's value is wrong by at most error() of itself: 0 when exact, else 2^-11 for
///          values over 32 octaves (of both signs together), at most 2^-7 whatever the values.
/// Memory   at most 3 MiB, less for fewer values.
class Histogram {
 public:
  static constexpr size_t kMaxBins = size_t{1} << 17;

  void add(float value, int64_t n = 1) {
    const uint32_t key = key_of(value) >> shift_;
    if (keys_.empty() || keys_[last_] != key || counts_[last_] == 0) last_ = slot_of(key);
    const bool is_new = counts_[last_] == 0;
    counts_[last_] += n;
    count_ += n;
    if (value < least_) least_ = value;
    if (value > largest_) largest_ = value;
    if (is_new) settle(key);
  }
  void merge(const Histogram& other);

  int64_t count() const { return count_; }
  double error() const;
  /// numpy.percentile(values, percents), method "linear"; percents rise. Empty without values.
  std::vector<double> percentiles(std::span<const double> percents) const;

  struct Bin {
    float low = 0, high = 0;  // equal when exact
    int64_t count = 0;
    float middle() const { return low == 0 ? 0.0f : low + (high - low) / 2; }
  };
  /// From the least value on.
  std::vector<Bin> bins() const;

 private:
  /// Rises with the value; -0 is 0.
  static uint32_t key_of(float value);
  static float value_of(uint32_t key);
  size_t slot_of(uint32_t key);
  void settle(uint32_t key);
  void rebuild(size_t slots, int shift);

  std::vector<uint32_t> keys_;  // open addressing; a slot with count 0 is free
  std::vector<int64_t> counts_;
  size_t used_ = 0, last_ = 0;
  int shift_ = 0;  // low bits of a float's place among all floats that a bin leaves out
  int64_t count_ = 0;
  float least_ = std::numeric_limits<float>::infinity(),
        largest_ = -std::numeric_limits<float>::infinity();
};

/// Mean and variance of numbers that come in parts.
struct Moments {
  int64_t count = 0;
  double mean = 0, squares = 0;  // sum of squared differences from the mean
  double min = std::numeric_limits<double>::infinity(),
         max = -std::numeric_limits<double>::infinity();

  /// Chan, Golub & LeVeque 1979. The result depends on the order in the last bits only.
  void merge(const Moments& other);
  void add(double value, int64_t n) { merge({n, value, 0.0, value, value}); }
  double std() const;  // of the numbers as all there are
  /// Of (number - low) / span.
  Moments scaled(double low, double span) const;
};

/// In runs of 4096, two passes each.
Moments moments_of(std::span<const float> values);

}  // namespace vitrail::data
