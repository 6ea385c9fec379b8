#include "vitrail/data/transform.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/resize.h"

namespace vitrail::data {
namespace {

/// One value per channel from a recipe's list of none, one or C.
std::vector<float> per_channel(const std::vector<double>& values, float none, int64_t channels,
                               const char* key, const std::string& source) {
  const auto n = static_cast<int64_t>(values.size());
  VT_REQUIRE(ConfigError, n == 0 || n == 1 || n == channels,
             "[data] source '{}': {} must have 1 or {} (model.in_channels, or the source's "
             "variables) numbers but has {}",
             source, key, channels, n);
  std::vector<float> result(static_cast<size_t>(channels), none);
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

/// (value in its range - mean) / std of one channel; for bytes a table of all 256 results.
template <class T>
class Normalise {
 public:
  Normalise(const ValueRange& range, size_t channel, float mean, float std)
      : low_(range.low[channel]),
        span_(range.span[channel]),
        mean_(mean),
        std_(std),
        clips_(range.clips) {
    if constexpr (std::is_same_v<T, uint8_t>)
      for (int v = 0; v < 256; ++v) table_[static_cast<size_t>(v)] = compute(static_cast<float>(v));
  }
  float operator()(T value) const {
    if constexpr (std::is_same_v<T, uint8_t>)
      return table_[value];
    else
      return compute(value);
  }
  /// Of a pixel outside the image.
  float padding() const { return (0.0f - mean_) / std_; }

 private:
  float compute(float value) const {
    float scaled = (value - low_) / span_;
    if (clips_) scaled = std::clamp(scaled, 0.0f, 1.0f);
    return (scaled - mean_) / std_;
  }

  float low_, span_, mean_, std_;
  bool clips_;
  std::array<float, std::is_same_v<T, uint8_t> ? 256 : 1> table_{};
};

std::vector<AxisMap> identities(const std::vector<int64_t>& sides) {
  std::vector<AxisMap> axes;
  for (size_t axis = 0; axis < sides.size(); ++axis)
    axes.push_back(AxisMap::identity(sides[axis], axis));
  return axes;
}

}  // namespace

Transform::Transform(const config::Source& source, const config::Model& model, bool training,
                     bool raw)
    : resize_(checked_resize(source, model.image_size)),
      target_(model.image_size),
      channels_(channels_of(source, model)),
      range_(source),
      mean_(per_channel(source.mean, range_.keeps_values() ? 0.0f : 0.5f, channels_, "mean",
                        source_name(source))),
      std_(per_channel(source.std, range_.keeps_values() ? 1.0f : 0.5f, channels_, "std",
                       source_name(source))),
      steps_(parse_augment(source.augment, source_name(source))) {
  check_augment(steps_, resize_, target_, source_name(source));
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
int64_t Transform::pixels_per_sample() const { return count(target_); }

Window Transform::checked_window(const Pixels& pixels, const std::string& path) const {
  VT_REQUIRE(DataError, pixels.sides.size() == target_.size(),
             "[data] {}: expected {} sides like model.image_size but the file has {}", path,
             target_.size(), describe(pixels.sides));
  return whole_window(0, pixels.sides);
}

Decoded Transform::prepare(Pixels pixels, Mask mask, const std::string& path) const {
  Decoded file{to_channels(std::move(pixels), channels_, path), std::move(mask), {}};
  file.range = range_.of(file.image);
  return file;
}

void Transform::apply(const Decoded& file, const Window& window, const AugmentPlace& place,
                      float* image, int64_t* mask) const {
  const bool as_stored = window.sample_sides() == resize_;
  std::vector<AxisMap> axes = as_stored ? axes_of(window) : identities(resize_);
  augment(axes, steps_, place, target_);
  center_crop(axes, target_);
  Pixels resized;
  if (!as_stored) resized = resize(cut(file.image, window, file.range.low), resize_);
  const Pixels& from = as_stored ? file.image : resized;
  const std::vector<int64_t> strides = strides_of(from.sides, from.channels);
  const int64_t offset = as_stored ? offset_of(window, strides) : 0;
  with_values(from, [&](const auto& values) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    for (size_t c = 0; c < static_cast<size_t>(channels_); ++c) {
      const Normalise<Value> normalise(file.range, c, mean_[c], std_[c]);
      gather(values.data() + offset + c, strides, axes, normalise.padding(), normalise,
             image + static_cast<int64_t>(c) * pixels_per_sample());
    }
  });
  if (mask == nullptr) return;
  if (file.mask.empty()) {
    std::fill(mask, mask + pixels_per_sample(), -1);
    return;
  }
  Mask resized_mask;
  if (!as_stored) resized_mask = resize(cut(file.mask, window), resize_);
  const Mask& classes = as_stored ? file.mask : resized_mask;
  const std::vector<int64_t> mask_strides = strides_of(classes.sides, 1);
  gather(
      classes.classes.data() + (as_stored ? offset_of(window, mask_strides) : 0), mask_strides,
      axes, int64_t{-1}, [](int32_t value) { return static_cast<int64_t>(value); }, mask);
}

void Transform::apply(Pixels pixels, const AugmentPlace& place, const std::string& path,
                      float* out) const {
  const Window window = checked_window(pixels, path);
  apply(prepare(std::move(pixels), {}, path), window, place, out, nullptr);
}

}  // namespace vitrail::data
