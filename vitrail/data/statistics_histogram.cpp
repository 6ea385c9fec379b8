#include "vitrail/data/statistics_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace vitrail::data {
namespace {

constexpr size_t kFirstSlots = 1024, kNone = ~size_t{0};
constexpr uint32_t kSign = 0x80000000u;

}  // namespace

uint32_t Histogram::key_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

float Histogram::value_of(uint32_t key) {
  return std::bit_cast<float>((key & kSign) != 0 ? key & ~kSign : ~key);
}

size_t Histogram::slot_of(uint32_t key) {
  if (keys_.empty()) rebuild(kFirstSlots, shift_);
  const size_t mask = keys_.size() - 1;
  size_t slot = (key * uint64_t{0x9E3779B97F4A7C15} >> 32) & mask;
  while (counts_[slot] != 0 && keys_[slot] != key) slot = (slot + 1) & mask;
  return slot;
}

void Histogram::settle(uint32_t key) {
  keys_[last_] = key;
  ++used_;
  while (used_ > kMaxBins) rebuild(keys_.size(), shift_ + 1);
  if (2 * used_ > keys_.size() && keys_.size() < 2 * kMaxBins) rebuild(2 * keys_.size(), shift_);
}

void Histogram::rebuild(size_t slots, int shift) {
  std::vector<uint32_t> keys(slots);
  std::vector<int64_t> counts(slots);
  keys.swap(keys_);
  counts.swap(counts_);
  const int drop = shift - shift_;
  shift_ = shift;
  used_ = last_ = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (counts[i] == 0) continue;
    const uint32_t key = keys[i] >> drop;
    const size_t slot = slot_of(key);
    if (counts_[slot] == 0) ++used_;
    keys_[slot] = key;
    counts_[slot] += counts[i];
  }
}

void Histogram::merge(const Histogram& other) {
  if (other.count_ == 0) return;
  if (other.shift_ > shift_) rebuild(std::max(keys_.size(), kFirstSlots), other.shift_);
  for (size_t i = 0; i < other.keys_.size(); ++i) {
    if (other.counts_[i] == 0) continue;
    const uint32_t key = other.keys_[i] >> (shift_ - other.shift_);  // may grow on the way
    last_ = slot_of(key);
    const bool is_new = counts_[last_] == 0;
    counts_[last_] += other.counts_[i];
    if (is_new) settle(key);
  }
  count_ += other.count_;
  least_ = std::min(least_, other.least_);
  largest_ = std::max(largest_, other.largest_);
}

double Histogram::error() const { return shift_ == 0 ? 0.0 : std::ldexp(1.0, shift_ - 23); }

std::vector<Histogram::Bin> Histogram::bins() const {
  std::vector<std::pair<uint32_t, int64_t>> used;
  used.reserve(used_);
  for (size_t i = 0; i < keys_.size(); ++i)
    if (counts_[i] != 0) used.emplace_back(keys_[i], counts_[i]);
  std::sort(used.begin(), used.end());
  std::vector<Bin> bins;
  bins.reserve(used.size());
  for (const auto& [key, n] : used) {
    const uint32_t first = key << shift_, last = first + ((uint32_t{1} << shift_) - 1);
    bins.push_back({std::max(value_of(first), least_), std::min(value_of(last), largest_), n});
  }
  return bins;
}

std::vector<double> Histogram::percentiles(std::span<const double> percents) const {
  std::vector<double> result;
  if (count_ == 0) return result;
  const std::vector<Bin> all = bins();
  size_t bin = 0;
  int64_t before = 0;  // values in bins before `bin`
  // The value at place k of all in order; the values of a bin are taken to be evenly spread.
  const auto at = [&](int64_t k) {
    size_t i = bin;
    int64_t left = k - before;
    while (left >= all[i].count) left -= all[i++].count;
    if (k == 0 || k == count_ - 1) return static_cast<double>(k == 0 ? least_ : largest_);
    const double low = all[i].low, high = all[i].high;
    if (low == 0) return 0.0;
    return low +
           (high - low) * (static_cast<double>(left) + 0.5) / static_cast<double>(all[i].count);
  };
  for (const double percent : percents) {
    const double place = static_cast<double>(count_ - 1) * percent / 100.0;
    const auto k = std::min(static_cast<int64_t>(place), count_ - 1);
    while (k - before >= all[bin].count) before += all[bin++].count;
    const double low = at(k), high = at(std::min(k + 1, count_ - 1));
    result.push_back(low + (high - low) * (place - static_cast<double>(k)));
  }
  return result;
}

void Moments::merge(const Moments& other) {
  if (other.count == 0) return;
  const double n = static_cast<double>(count), m = static_cast<double>(other.count);
  const double step = other.mean - mean;
  squares += other.squares + step * step * n * m / (n + m);
  mean = count == 0 ? other.mean : mean + step * m / (n + m);
  count += other.count;
  min = std::min(min, other.min);
  max = std::max(max, other.max);
}

double Moments::std() const {
  return count == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(count));
}

Moments Moments::scaled(double low, double span) const {
  if (count == 0) return {};
  return {count, (mean - low) / span, squares / (span * span), (min - low) / span,
          (max - low) / span};
}

Moments moments_of(std::span<const float> values) {
  constexpr size_t kRun = 4096;
  Moments all;
  for (size_t first = 0; first < values.size(); first += kRun) {
    const std::span<const float> run = values.subspan(first, std::min(kRun, values.size() - first));
    Moments part;
    part.count = static_cast<int64_t>(run.size());
    double sum = 0;
    for (const float value : run) sum += value;
    part.mean = sum / static_cast<double>(run.size());
    for (const float value : run) {
      const double away = value - part.mean;
      part.squares += away * away;
    }
    const auto [least, largest] = std::minmax_element(run.begin(), run.end());
    part.min = *least;
    part.max = *largest;
    all.merge(part);
  }
  return all;
}

}  // namespace vitrail::data
