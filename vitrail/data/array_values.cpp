// Boxes of arrays as numbers: whatever their type, and whatever the order of their axes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/data/array_samples.h"
#include "vitrail/io/array_rows.h"

namespace vitrail::data {
namespace {

using core::DType;

constexpr int64_t kMaxValues = int64_t{1} << 32;   // of one box
constexpr int64_t kMaxNumbers = int64_t{1} << 28;  // of one array of labels

/// A byte that is zero or not.
struct Bool {
  uint8_t byte;
  operator uint8_t() const { return byte != 0; }
};

/// body(T{}) with the type of a stored number.
template <class Body>
void with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f64:
      return body(double{});
    case DType::f32:
      return body(float{});
    case DType::f16:
      return body(c10::Half{});
    case DType::bf16:
      return body(c10::BFloat16{});
    case DType::i64:
      return body(int64_t{});
    case DType::i32:
      return body(int32_t{});
    case DType::i16:
      return body(int16_t{});
    case DType::i8:
      return body(int8_t{});
    case DType::u64:
      return body(uint64_t{});
    case DType::u32:
      return body(uint32_t{});
    case DType::u16:
      return body(uint16_t{});
    case DType::u8:
      return body(uint8_t{});
    case DType::boolean:
      return body(Bool{});
  }
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// A part of the file that is read at once: channels [low, high), of which some are wanted.
struct ChannelRun {
  int64_t low = 0, high = 1;
  std::vector<std::pair<int64_t, int64_t>> places;  // channel of the file, channel of the result
};

/// Channels that lie together are read together: neighbours of the last axis or of one chunk.
std::vector<ChannelRun> runs_of(const ArraySample& sample, const std::vector<int64_t>& channels) {
  const auto axis = static_cast<size_t>(std::max<int64_t>(sample.axes.channels, 0));
  const std::vector<int64_t> chunk = sample.file->chunk_shape();
  const bool at_once = sample.axes.channels < 0 || axis + 1 == sample.file->shape().size() ||
                       (axis < chunk.size() && chunk[axis] > 1);
  std::vector<ChannelRun> runs;
  for (size_t k = 0; k < channels.size(); ++k) {
    if (runs.empty() || !at_once) runs.push_back({channels[k], channels[k] + 1, {}});
    ChannelRun& run = runs.back();
    run.low = std::min(run.low, channels[k]);
    run.high = std::max(run.high, channels[k] + 1);
    run.places.emplace_back(channels[k], static_cast<int64_t>(k));
  }
  return runs;
}

/// A box of the file, in the file's axes, and where its values go in [sides..., channels].
struct FileBox {
  std::vector<int64_t> origin, sides, to_strides;
  int64_t channel_axis = -1;

  int64_t values() const { return count(sides); }
};

FileBox file_box(const ArraySample& sample, const Box& box, const ChannelRun& run,
                 int64_t channels) {
  const size_t axes = sample.file->shape().size();
  FileBox result{std::vector<int64_t>(axes, 0), std::vector<int64_t>(axes, 1),
                 std::vector<int64_t>(axes, 0), sample.axes.channels};
  if (sample.axes.samples >= 0)
    result.origin[static_cast<size_t>(sample.axes.samples)] = sample.number;
  if (sample.axes.channels >= 0) {
    result.origin[static_cast<size_t>(sample.axes.channels)] = run.low;
    result.sides[static_cast<size_t>(sample.axes.channels)] = run.high - run.low;
    result.to_strides[static_cast<size_t>(sample.axes.channels)] = 1;
  }
  const std::vector<int64_t> strides = io::row_major_strides(box.sides, channels);
  for (size_t side = 0; side < box.sides.size(); ++side) {
    if (sample.axes.sides[side] < 0) continue;
    const auto axis = static_cast<size_t>(sample.axes.sides[side]);
    result.origin[axis] = box.origin[side];
    result.sides[axis] = box.sides[side];
    result.to_strides[axis] = strides[side];
  }
  return result;
}

/// The file's values, as they are read, are the result in its order.
bool is_in_order(const FileBox& box, const ChannelRun& run, int64_t channels) {
  if (static_cast<int64_t>(run.places.size()) != channels || run.high - run.low != channels)
    return false;
  for (const auto& [from, to] : run.places)
    if (from - run.low != to) return false;
  const std::vector<int64_t> strides = io::row_major_strides(box.sides, 1);
  for (size_t axis = 0; axis < box.sides.size(); ++axis)
    if (box.sides[axis] > 1 && strides[axis] != box.to_strides[axis]) return false;
  return true;
}

/// Puts values that were read in the file's order where they belong.
template <class T, class Out, class Convert>
void scatter(const std::byte* values, const FileBox& box, const ChannelRun& run, Out* out,
             const Convert& convert) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  const std::vector<int64_t> strides = io::row_major_strides(box.sides, kBytes);
  std::vector<int64_t> sides = box.sides, from_strides = strides, to_strides = box.to_strides;
  int64_t channel_stride = 0;
  if (box.channel_axis >= 0) {  // channels are walked by themselves: not all may be wanted
    channel_stride = strides[static_cast<size_t>(box.channel_axis)];
    for (std::vector<int64_t>* list : {&sides, &from_strides, &to_strides})
      list->erase(list->begin() + box.channel_axis);
  }
  for (const auto& [channel, place] : run.places)
    io::for_each_row(
        sides, from_strides, to_strides,
        [&](int64_t from, int64_t to) {
          const int64_t step = from_strides.back(), to_step = to_strides.back();
          for (int64_t i = 0; i < sides.back(); ++i)
            out[to + i * to_step] = convert(load<T>(values + from + i * step));
        },
        (channel - run.low) * channel_stride, place);
}

int64_t checked_values(const ArraySample& sample, const Box& box, int64_t channels) {
  const int64_t values = core::checked_mul(core::checked_product(box.sides, "the pixels of a box"),
                                           channels, "the values of a box");
  VT_REQUIRE(DataError, values <= kMaxValues,
             "[data] {}: at most {} values are read at once but {} x {} channel(s) are asked for; "
             "set tile or random_crop",
             sample.path, kMaxValues, describe(box.sides), channels);
  return values;
}

template <class Out>
std::byte* as_bytes(Out* out) {
  return reinterpret_cast<std::byte*>(out);
}

/// Fills out[sides..., channels] with convert(value as stored).
template <class Out, class Convert>
void read_box(const ArraySample& sample, const Box& box, const std::vector<int64_t>& channels,
              Out* out, const Convert& convert) {
  const auto count_channels = static_cast<int64_t>(channels.size());
  std::vector<std::byte> buffer;
  for (const ChannelRun& run : runs_of(sample, channels)) {
    const FileBox part = file_box(sample, box, run, count_channels);
    checked_values(sample, box, run.high - run.low);
    const bool in_order = is_in_order(part, run, count_channels);
    with_type(sample.file->dtype(), [&](auto zero) {
      using T = decltype(zero);
      if constexpr (std::is_same_v<T, Out>)
        if (in_order) return sample.file->read(part.origin, part.sides, as_bytes(out));
      buffer.resize(static_cast<size_t>(part.values()) * sizeof(T));
      sample.file->read(part.origin, part.sides, buffer.data());
      if (in_order)
        for (int64_t i = 0; i < part.values(); ++i)
          out[i] = convert(load<T>(buffer.data() + static_cast<size_t>(i) * sizeof(T)));
      else
        scatter<T>(buffer.data(), part, run, out, convert);
    });
  }
}

std::vector<int64_t> all_or(const std::vector<int64_t>& channels, const ArraySample& sample) {
  if (channels.empty()) {
    std::vector<int64_t> all(static_cast<size_t>(sample.channels()));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  for (const int64_t channel : channels)
    VT_REQUIRE(DataError, channel >= 0 && channel < sample.channels(),
               "[data] {}: channels must lie in [0, {}), as many as the file has, but one is {}",
               sample.path, sample.channels(), channel);
  return channels;
}

/// The first value that `is_bad` takes is named with its place.
template <class IsBad>
void check_floats(const std::vector<float>& values, const std::string& path, const char* must,
                  const IsBad& is_bad) {
  bool any = false;  // without a branch: one pass at the speed of memory
  for (const float value : values) any |= is_bad(value);
  if (!any) return;
  const auto bad = std::find_if(values.begin(), values.end(), is_bad);
  core::fail<core::DataError>("[data] {}: {} but value {} is {}", path, must, bad - values.begin(),
                              *bad);
}

const auto kToFloat = [](auto value) { return static_cast<float>(value); };

Pixels read_floats(const ArraySample& sample, const Box& box,
                   const std::vector<int64_t>& channels) {
  Pixels pixels;
  pixels.sides = box.sides;
  pixels.channels = static_cast<int64_t>(channels.size());
  pixels.full_scale = 1.0f;
  pixels.floats.resize(static_cast<size_t>(checked_values(sample, box, pixels.channels)));
  read_box(sample, box, channels, pixels.floats.data(), kToFloat);
  return pixels;
}

/// Integers that do not fit 32 bits are no class; they are named as they are.
template <class T>
int32_t to_class(T value, const std::string& path) {
  if constexpr (sizeof(T) >= 4 && std::is_integral_v<T> && !std::is_same_v<T, int32_t>)
    VT_REQUIRE(DataError, std::in_range<int32_t>(value),
               "[data] {}: mask values must fit in 32 bits but got {}", path, value);
  return static_cast<int32_t>(value);
}

bool is_real(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

}  // namespace

Pixels read_pixels(const ArraySample& sample, const Box& box,
                   const std::vector<int64_t>& channels) {
  const std::vector<int64_t> wanted = all_or(channels, sample);
  const DType dtype = sample.file->dtype();
  if (dtype != DType::u8) {
    Pixels pixels = read_floats(sample, box, wanted);
    if (dtype == DType::u16) pixels.full_scale = 65535.0f;
    if (is_real(dtype))
      check_floats(pixels.floats, sample.path, "values must be finite (as 32-bit floats)",
                   [](float value) { return !std::isfinite(value); });
    return pixels;
  }
  Pixels pixels;
  pixels.sides = box.sides;
  pixels.channels = static_cast<int64_t>(wanted.size());
  pixels.values.resize(static_cast<size_t>(checked_values(sample, box, pixels.channels)));
  read_box(sample, box, wanted, pixels.values.data(),
           [](auto value) { return static_cast<uint8_t>(value); });
  return pixels;
}

Pixels read_values(const ArraySample& sample, const Box& box) {
  Pixels pixels = read_floats(sample, box, all_or({}, sample));
  if (is_real(sample.file->dtype()))
    check_floats(pixels.floats, sample.path, "values to be learnt must be finite or NaN",
                 [](float value) { return std::isinf(value); });
  return pixels;
}

Mask read_integers(const ArraySample& sample, const Box& box) {
  VT_REQUIRE(DataError, sample.channels() == 1,
             "[data] {}: a mask must have one channel but has {}", sample.path, sample.channels());
  Mask mask{box.sides, {}};
  mask.classes.resize(static_cast<size_t>(checked_values(sample, box, 1)));
  const DType dtype = sample.file->dtype();
  if (!is_real(dtype)) {
    read_box(sample, box, {0}, mask.classes.data(),
             [&](auto value) { return to_class(value, sample.path); });
    return mask;
  }
  constexpr float kMaxValue = 1 << 24;  // floats are exact up to here
  const std::vector<float> values = read_floats(sample, box, {0}).floats;
  check_floats(values, sample.path, "mask values must be whole numbers", [](float value) {
    return !(std::abs(value) <= kMaxValue && value == std::nearbyint(value));
  });
  for (size_t i = 0; i < values.size(); ++i) mask.classes[i] = static_cast<int32_t>(values[i]);
  return mask;
}

std::vector<double> read_numbers(const io::ArrayFile& file, const std::string& path) {
  const int64_t values = core::checked_product(file.shape(), "the number of labels");
  VT_REQUIRE(DataError, values <= kMaxNumbers,
             "[data] {}: at most {} numbers may be labels but it holds {}", path, kMaxNumbers,
             describe(file.shape()));
  std::vector<double> numbers(static_cast<size_t>(values));
  with_type(file.dtype(), [&](auto zero) {
    using T = decltype(zero);
    std::vector<std::byte> buffer(numbers.size() * sizeof(T));
    const std::vector<int64_t> origin(file.shape().size(), 0);
    file.read(origin, file.shape(), buffer.data());
    for (size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = static_cast<double>(load<T>(buffer.data() + i * sizeof(T)));
  });
  return numbers;
}

}  // namespace vitrail::data
