#pragma once
// One test body for every backend: every collective x element type x size against plain loops.

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/comm/communicator.h"

namespace vitrail::comm::test {

using core::DType;

inline const std::vector<DType> kTypes = {DType::f32, DType::f64, DType::f16, DType::bf16,
                                          DType::i64, DType::i32, DType::u8};
// 1: less than one element a rank; 7: uneven slices, on the card; 1000: past the card; 100003:
// uneven, many pieces of 256 and a remainder.
inline const std::vector<int64_t> kCounts = {1, 7, 1000, 100'003};

inline bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::f16 || dtype == DType::bf16;
}

/// Rounds to a binary format with `bits` of significand (hidden bit counted) and smallest normal
/// number 2^smallest, ties to even; overflow is not met here.
inline double round_to(double value, int bits, int smallest) {
  if (value == 0) return value;
  const int exponent = std::max(std::ilogb(value), smallest) + 1 - bits;
  return std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
}

/// The nearest value that `dtype` holds.
inline double rounded(DType dtype, double value) {
  switch (dtype) {
    case DType::f32:
      return static_cast<float>(value);
    case DType::bf16:
      return round_to(value, 8, -126);
    case DType::f16:
      return round_to(value, 11, -14);
    default:
      return value;
  }
}

inline uint16_t half_bits(double value, int exponent_bits, int fraction_bits) {
  const int sign = std::signbit(value) ? 0x8000 : 0, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = value == 0 ? -bias : std::ilogb(value);
  if (exponent <= -bias)  // zero, subnormal
    return static_cast<uint16_t>(
        sign | static_cast<int>(std::ldexp(std::fabs(value), bias - 1 + fraction_bits)));
  const double fraction =
      std::ldexp(std::fabs(value), fraction_bits - exponent) - std::ldexp(1.0, fraction_bits);
  return static_cast<uint16_t>(sign | ((exponent + bias) << fraction_bits) |
                               static_cast<int>(fraction));
}

/// Bytes of values that `dtype` holds exactly.
inline std::vector<char> encode(DType dtype, const std::vector<double>& values) {
  std::vector<char> bytes(values.size() * static_cast<size_t>(core::size_bytes(dtype)));
  const auto put = [&](size_t i, auto value) {
    std::memcpy(bytes.data() + i * sizeof(value), &value, sizeof(value));
  };
  for (size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::f32:
        put(i, static_cast<float>(values[i]));
        break;
      case DType::f64:
        put(i, values[i]);
        break;
      case DType::bf16:
        put(i, half_bits(values[i], 8, 7));
        break;
      case DType::f16:
        put(i, half_bits(values[i], 5, 10));
        break;
      case DType::i64:
        put(i, static_cast<int64_t>(values[i]));
        break;
      case DType::i32:
        put(i, static_cast<int32_t>(values[i]));
        break;
      default:
        put(i, static_cast<uint8_t>(values[i]));
        break;
    }
  }
  return bytes;
}

inline double decode_half(uint16_t bits, int fraction_bits) {
  const int exponent = (bits & 0x7FFF) >> fraction_bits, bias = fraction_bits == 7 ? 127 : 15;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double size =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
  return bits & 0x8000 ? -size : size;
}

inline std::vector<double> decode(DType dtype, const std::vector<char>& bytes) {
  const size_t width = static_cast<size_t>(core::size_bytes(dtype));
  std::vector<double> values(bytes.size() / width);
  const auto get = [&]<class T>(size_t i, T value) {
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    return value;
  };
  for (size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::f32:
        values[i] = get(i, float{});
        break;
      case DType::f64:
        values[i] = get(i, double{});
        break;
      case DType::bf16:
        values[i] = decode_half(get(i, uint16_t{}), 7);
        break;
      case DType::f16:
        values[i] = decode_half(get(i, uint16_t{}), 10);
        break;
      case DType::i64:
        values[i] = static_cast<double>(get(i, int64_t{}));
        break;
      case DType::i32:
        values[i] = get(i, int32_t{});
        break;
      default:
        values[i] = get(i, uint8_t{});
        break;
    }
  }
  return values;
}

/// Element i of rank r: spread over seven binades, so that the order of a sum shows in its last
/// bits.
inline double element(DType dtype, int rank, int64_t i) {
  uint64_t x = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15ull +
               static_cast<uint64_t>(rank + 1) * 0xD1B54A32D192ED03ull;
  x = (x ^ (x >> 31)) * 0x94D049BB133111EBull;
  x ^= x >> 29;
  if (dtype == DType::u8) return static_cast<double>(x % 30);  // sums of 8 ranks stay below 256
  if (!is_float(dtype)) return static_cast<double>(static_cast<int64_t>(x % 20001) - 10000);
  const double fraction = (static_cast<double>(x % 100'000) + 1) / 100'001 - 0.5;
  return rounded(
      dtype, std::ldexp(fraction + (fraction < 0 ? -0.5 : 0.5), static_cast<int>(x >> 40) % 7 - 3));
}

inline std::vector<double> elements(DType dtype, int rank, int64_t first, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[static_cast<size_t>(i)] = element(dtype, rank, first + i);
  return values;
}

/// The plain loop: what communicator.h promises for element i over `ranks` ranks.
template <class T>
double reduce_as(DType dtype, Reduce op, int ranks, int64_t i) {
  T total = static_cast<T>(element(dtype, 0, i));
  for (int rank = 1; rank < ranks; ++rank) {
    const T next = static_cast<T>(element(dtype, rank, i));
    if (op == Reduce::max)
      total = std::max(total, next);
    else if (op == Reduce::min)
      total = std::min(total, next);
    else
      total = total + next;
  }
  if (op == Reduce::average) total = total / static_cast<T>(ranks);
  return rounded(dtype, static_cast<double>(total));
}

inline std::vector<double> reduced(DType dtype, Reduce op, int ranks, int64_t first,
                                   int64_t count) {
  std::vector<double> values;
  for (int64_t i = first; i < first + count; ++i)
    values.push_back(dtype == DType::f64 || !is_float(dtype)
                         ? reduce_as<double>(dtype, op, ranks, i)
                         : reduce_as<float>(dtype, op, ranks, i));
  return values;
}

/// Where buffers live: host memory here, a device in nccl_test.cpp.
class Place {
 public:
  virtual ~Place() = default;
  virtual void* make(const std::vector<char>& bytes) = 0;
  /// Waits for the stream and copies out.
  virtual std::vector<char> read(const void* data, size_t bytes) = 0;
  virtual void clear() = 0;
  virtual Stream stream() { return nullptr; }
  /// Largest relative difference allowed to the plain loop; 0 = bits. Host groups add in the
  /// promised order.
  virtual double tolerance(DType) const { return 0; }
};

class HostPlace final : public Place {
 public:
  void* make(const std::vector<char>& bytes) override {
    blocks_.push_back(std::make_unique<std::vector<char>>(bytes));
    blocks_.back()->reserve(1);
    return blocks_.back()->data();
  }
  std::vector<char> read(const void* data, size_t bytes) override {
    const char* first = static_cast<const char*>(data);
    return {first, first + bytes};
  }
  void clear() override { blocks_.clear(); }

 private:
  std::vector<std::unique_ptr<std::vector<char>>> blocks_;
};

class Body {
 public:
  /// `control` carries the comparison between ranks; it may be the group itself.
  Body(Communicator& group, Communicator& control, Place& place)
      : group_(group), control_(control), place_(place), rank_(group.rank()), size_(group.size()) {}

  void run_all() {
    for (const DType dtype : kTypes)
      for (const int64_t count : kCounts) {
        for (const Reduce op : {Reduce::sum, Reduce::average, Reduce::max, Reduce::min})
          if (op != Reduce::average || is_float(dtype)) reductions(dtype, count, op);
        movements(dtype, count);
        place_.clear();
      }
    group_.barrier();
    several_at_once();
    splits();
    place_.clear();
  }
  double worst() const { return worst_; }

 private:
  Buffer buffer(DType dtype, const std::vector<double>& values) {
    return {place_.make(encode(dtype, values)), static_cast<int64_t>(values.size()), dtype};
  }
  Buffer empty(DType dtype, int64_t count) {
    return buffer(dtype, std::vector<double>(static_cast<size_t>(count), 3.0));
  }

  void expect(const std::string& what, Buffer got, const std::vector<double>& want,
              double tolerance) {
    const std::vector<char> bytes = place_.read(got.data, static_cast<size_t>(got.bytes()));
    const std::string label = what + " of " + std::to_string(got.count) + " x " +
                              std::string(core::name(got.dtype)) + ", rank " +
                              std::to_string(rank_) + " of " + std::to_string(size_);
    if (tolerance == 0) {
      EXPECT_TRUE(bytes == encode(got.dtype, want))
          << label << first_difference(got.dtype, bytes, want);
      return;
    }
    const std::vector<double> values = decode(got.dtype, bytes);
    for (size_t i = 0; i < want.size(); ++i) {
      const double error = std::fabs(values[i] - want[i]);
      worst_ = std::max(worst_, error / tolerance);
      ASSERT_LE(error, tolerance) << label << ": element " << i << " is " << values[i] << ", not "
                                  << want[i];
    }
  }
  static std::string first_difference(DType dtype, const std::vector<char>& bytes,
                                      const std::vector<double>& want) {
    const std::vector<double> values = decode(dtype, bytes);
    for (size_t i = 0; i < want.size(); ++i)
      if (values[i] != want[i])
        return ": element " + std::to_string(i) + " is " + std::to_string(values[i]) + ", not " +
               std::to_string(want[i]);
    return ": the bits differ";
  }
  /// The same bytes on every rank.
  void expect_same_bits(const std::string& what, Buffer got) {
    uint64_t hash = 0xCBF29CE484222325ull;
    for (const char byte : place_.read(got.data, static_cast<size_t>(got.bytes())))
      hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3ull;
    for (const std::string& other : gather_strings(control_, std::to_string(hash)))
      EXPECT_EQ(other, std::to_string(hash))
          << what << " differs between ranks, seen on rank " << rank_;
  }

  void reductions(DType dtype, int64_t count, Reduce op) {
    const double tolerance =
        op == Reduce::max || op == Reduce::min || !is_float(dtype) ? 0 : place_.tolerance(dtype);
    const Buffer whole = buffer(dtype, elements(dtype, rank_, 0, count));
    group_.all_reduce(whole, op, place_.stream()).wait();
    expect(std::string("all_reduce ") + name(op), whole, reduced(dtype, op, size_, 0, count),
           tolerance);
    expect_same_bits(std::string("all_reduce ") + name(op), whole);

    const int64_t part = per_rank(count);
    const Buffer in = buffer(dtype, elements(dtype, rank_, 0, part * size_)),
                 out = empty(dtype, part);
    group_.reduce_scatter(in, out, op, place_.stream()).wait();
    expect(std::string("reduce_scatter ") + name(op), out,
           reduced(dtype, op, size_, rank_ * part, part), tolerance);
  }

  /// So that the sum of all parts is about `whole`.
  int64_t per_rank(int64_t whole) const { return (whole + size_ - 1) / size_; }

  void movements(DType dtype, int64_t whole) {
    const int64_t count = per_rank(whole);
    std::vector<double> all, exchanged;
    for (int peer = 0; peer < size_; ++peer) {
      for (const double value : elements(dtype, peer, 0, count)) all.push_back(value);
      for (const double value : elements(dtype, peer, rank_ * count, count))
        exchanged.push_back(value);
    }
    const Buffer mine = buffer(dtype, elements(dtype, rank_, 0, count)),
                 gathered = empty(dtype, count * size_);
    group_.all_gather(mine, gathered, place_.stream()).wait();
    expect("all_gather", gathered, all, 0);
    gather_in_place(dtype, count, all);

    const Buffer out = empty(dtype, count * size_);
    group_.all_to_all(buffer(dtype, elements(dtype, rank_, 0, count * size_)), out, place_.stream())
        .wait();
    expect("all_to_all", out, exchanged, 0);

    for (const int root : {0, size_ - 1}) {
      const Buffer inout = buffer(dtype, elements(dtype, rank_, 0, count));
      group_.broadcast(inout, root, place_.stream()).wait();
      expect("broadcast", inout, elements(dtype, root, 0, count), 0);
    }
    const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
    const Buffer shifted = empty(dtype, count);
    group_.send_receive(mine, next, shifted, previous, place_.stream()).wait();
    expect("send_receive", shifted, elements(dtype, previous, 0, count), 0);
    if (size_ >= 2) pass_along(dtype, count);
  }

  // This rank's part of the result is what it gives; the rest is something else before.
  void gather_in_place(DType dtype, int64_t count, const std::vector<double>& all) {
    std::vector<double> before(all.size(), 3.0);
    std::copy_n(all.begin() + rank_ * count, count, before.begin() + rank_ * count);
    const Buffer whole = buffer(dtype, before);
    const auto first = static_cast<size_t>(rank_ * count * core::size_bytes(dtype));
    const Buffer mine{static_cast<char*>(whole.data) + first, count, dtype};
    group_.all_gather(mine, whole, place_.stream()).wait();
    expect("all_gather in place", whole, all, 0);
  }

  // Rank 0 sends to every rank, two messages each.
  void pass_along(DType dtype, int64_t count) {
    if (rank_ == 0) {
      std::vector<Work> works;
      for (int peer = 1; peer < size_; ++peer)
        for (const int64_t first : {int64_t{0}, count})
          works.push_back(group_.send(buffer(dtype, elements(dtype, peer, first, count)), peer,
                                      place_.stream()));
      for (Work& work : works) work.wait();
      place_.read(nullptr, 0);
      return;
    }
    const Buffer first = empty(dtype, count), second = empty(dtype, count);
    Work one = group_.receive(first, 0, place_.stream()),
         two = group_.receive(second, 0, place_.stream());
    two.wait();
    one.wait();
    expect("receive", first, elements(dtype, rank_, 0, count), 0);
    expect("second receive", second, elements(dtype, rank_, count, count), 0);
  }

  // Works are started before any is waited for, and waited for out of order.
  void several_at_once() {
    std::vector<Buffer> buffers;
    std::vector<Work> works;
    // A transfer that nobody waited for yet, before the collectives.
    const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
    const Buffer shifted = empty(DType::f32, 5000);
    Work shift = group_.send_receive(buffer(DType::f32, elements(DType::f32, rank_, 0, 5000)), next,
                                     shifted, previous, place_.stream());
    for (int64_t i = 0; i < 8; ++i) {
      buffers.push_back(buffer(DType::f32, elements(DType::f32, rank_, i, 5000)));
      works.push_back(group_.all_reduce(buffers.back(), Reduce::sum, place_.stream()));
    }
    for (size_t i = 8; i-- > 0;) {
      works[i].wait();
      expect("all_reduce", buffers[i],
             reduced(DType::f32, Reduce::sum, size_, static_cast<int64_t>(i), 5000),
             place_.tolerance(DType::f32));
    }
    shift.wait();
    expect("send_receive", shifted, elements(DType::f32, previous, 0, 5000), 0);
  }

  // Even and odd ranks, in reverse order; then one of them split again.
  void splits() {
    const std::unique_ptr<Communicator> half = group_.split(rank_ % 2, -rank_);
    const int members = (size_ - rank_ % 2 + 1) / 2;
    ASSERT_EQ(half->size(), members);
    EXPECT_EQ(half->rank(), members - 1 - rank_ / 2);
    const Buffer mine = buffer(DType::i64, {static_cast<double>(rank_)}),
                 all = empty(DType::i64, members);
    half->all_gather(mine, all, place_.stream()).wait();
    std::vector<double> want;
    for (int i = members; i-- > 0;) want.push_back(2.0 * i + rank_ % 2);
    expect("all_gather of half the ranks", all, want, 0);
    const std::unique_ptr<Communicator> alone = half->split(half->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    alone->barrier();
    const std::unique_ptr<Communicator> again = half->split(0, half->rank());
    const Buffer total = buffer(DType::i32, {1.0});
    again->all_reduce(total, Reduce::sum, place_.stream()).wait();
    expect("all_reduce after two splits", total, {static_cast<double>(members)}, 0);
  }

  Communicator& group_;
  Communicator& control_;
  Place& place_;
  const int rank_, size_;
  double worst_ = 0;  // of the differences, as a share of what is allowed
};

inline void run_body_on_host(Communicator& group) {
  HostPlace place;
  Body(group, group, place).run_all();
}

}  // namespace vitrail::comm::test
