#include "vitrail/data/transform.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/resize.h"

namespace vitrail::data {
namespace {

/// One value per channel from a recipe's list of none, one or C.
std::vector<float> per_channel(const std::vector<double>& values, int64_t channels, const char* key,
                               const std::string& source) {
  const auto n = static_cast<int64_t>(values.size());
  VT_REQUIRE(ConfigError, n == 0 || n == 1 || n == channels,
             "[data] source '{}': {} must have 1 or {} (model.in_channels) numbers but has {}",
             source, key, channels, n);
  std::vector<float> result(static_cast<size_t>(channels), 0.5f);
  for (size_t c = 0; c < result.size() && n > 0; ++c)
    result[c] = static_cast<float>(n == 1 ? values[0] : values[c]);
  return result;
}

std::vector<int64_t> checked_resize(const config::Source& source,
                                    const std::vector<int64_t>& target) {
  if (source.resize.empty()) return target;
  VT_REQUIRE(ConfigError, source.resize.size() == target.size(),
             "[data] source '{}': resize must have {} sides like model.image_size but has {}",
             source_name(source), target.size(), source.resize.size());
  for (size_t axis = 0; axis < target.size(); ++axis)
    VT_REQUIRE(ConfigError, source.resize[axis] >= target[axis],
               "[data] source '{}': resize must be at least model.image_size ({}) along every axis "
               "but is {}",
               source_name(source), describe(target), describe(source.resize));
  return source.resize;
}

/// (value / full_scale - mean) / std of one channel; for bytes a table of all 256 results.
template <class T>
class Normalise {
 public:
  Normalise(float full_scale, float mean, float std)
      : full_scale_(full_scale), mean_(mean), std_(std) {
    if constexpr (std::is_same_v<T, uint8_t>)
      for (int v = 0; v < 256; ++v) table_[static_cast<size_t>(v)] = compute(static_cast<float>(v));
  }
  float operator()(T value) const {
    if constexpr (std::is_same_v<T, uint8_t>)
      return table_[value];
    else
      return compute(value);
  }

 private:
  float compute(float value) const { return (value / full_scale_ - mean_) / std_; }

  float full_scale_, mean_, std_;
  std::array<float, std::is_same_v<T, uint8_t> ? 256 : 1> table_{};
};

/// The source row (an offset in pixels) that result row `row` comes from; -1 when it lies outside
/// the image. Rows count over all axes but the last.
int64_t source_row(int64_t row, const std::vector<AxisMap>& axes,
                   const std::vector<int64_t>& sides) {
  int64_t result = 0, stride = 1;
  for (size_t axis = axes.size() - 1; axis-- > 0;) {
    const AxisMap& map = axes[axis];
    const int64_t p = row % map.size;
    row /= map.size;
    if (p < map.low || p >= map.high) return -1;
    result += (map.start + map.step * p) * stride;
    stride *= sides[axis];
  }
  return result;
}

/// Gathers channel-last values into channel-first floats: crop, shift, flip and normalisation in
/// one pass. Image is Pixels or FloatPixels.
template <class Image>
void gather(const Image& image, const std::vector<AxisMap>& axes, const std::vector<float>& mean,
            const std::vector<float>& std, float* out) {
  using Value = typename decltype(image.values)::value_type;
  const AxisMap& last = axes.back();
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < axes.size(); ++axis) rows *= axes[axis].size;
  const int64_t width = image.sides.back(), channels = image.channels;
  for (int64_t c = 0; c < channels; ++c) {
    const Normalise<Value> normalise(image.full_scale, mean[static_cast<size_t>(c)],
                                     std[static_cast<size_t>(c)]);
    const float zero = normalise(Value{0});
    for (int64_t row = 0; row < rows; ++row, out += last.size) {
      const int64_t from_row = source_row(row, axes, image.sides);
      const int64_t low = from_row < 0 ? last.size : last.low;
      const int64_t high = from_row < 0 ? last.size : last.high;
      std::fill(out, out + low, zero);
      if (low < high) {
        const int64_t first = from_row * width + last.start + last.step * low;
        const Value* from = image.values.data() + first * channels + c;
        const int64_t step = last.step * channels;
        for (int64_t p = 0; p < high - low; ++p) out[low + p] = normalise(from[p * step]);
      }
      std::fill(out + high, out + last.size, zero);
    }
  }
}

}  // namespace

Transform::Transform(const config::Source& source, const config::Model& model, bool training,
                     bool raw)
    : resize_(checked_resize(source, model.image_size)),
      target_(model.image_size),
      channels_(model.in_channels),
      mean_(per_channel(source.mean, channels_, "mean", source_name(source))),
      std_(per_channel(source.std, channels_, "std", source_name(source))),
      steps_(parse_augment(source.augment, source_name(source))) {
  for (const float value : std_)
    VT_REQUIRE(ConfigError, value > 0 && std::isfinite(value),
               "[data] source '{}': std must be above zero but is {}", source_name(source), value);
  if (!training || raw) steps_.clear();
  if (raw) {
    std::fill(mean_.begin(), mean_.end(), 0.0f);
    std::fill(std_.begin(), std_.end(), 1.0f);
  }
}

int64_t Transform::values_per_sample() const { return channels_ * count(target_); }

Pixels Transform::checked(Pixels pixels, const std::string& path) const {
  VT_REQUIRE(DataError, pixels.sides.size() == target_.size(),
             "[data] {}: expected {} sides like model.image_size but the file has {}", path,
             target_.size(), describe(pixels.sides));
  return to_channels(std::move(pixels), channels_, path);
}

void Transform::apply(Pixels pixels, const AugmentPlace& place, const std::string& path,
                      float* out) const {
  pixels = checked(std::move(pixels), path);
  std::vector<AxisMap> axes;
  for (const int64_t side : resize_) axes.push_back(AxisMap::identity(side));
  augment(axes, steps_, place, target_);
  center_crop(axes, target_);
  if (pixels.sides == resize_)
    gather(pixels, axes, mean_, std_, out);
  else
    gather(resize(pixels, resize_), axes, mean_, std_, out);
}

}  // namespace vitrail::data
