#include "vitrail/data/transform.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/normalise_row.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/resize.h"
#include "vitrail/data/statistics.h"

namespace vitrail::data {
namespace {

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

/// The results of all bytes.
std::array<float, 256> table_of(const Normalisation& rule) {
  std::array<float, 256> table{};
  for (size_t v = 0; v < table.size(); ++v) table[v] = rule(static_cast<float>(v));
  return table;
}

/// One channel of bytes or of floats, normalised.
void gather_channel(const uint8_t* in, const std::vector<int64_t>& strides,
                    const std::vector<AxisMap>& axes, const Normalisation& rule, float padding,
                    float* out) {
  const std::array<float, 256> table = table_of(rule);
  gather(
      in, strides, axes, padding, [&](uint8_t value) { return table[value]; }, out);
}
void gather_channel(const float* in, const std::vector<int64_t>& strides,
                    const std::vector<AxisMap>& axes, const Normalisation& rule, float padding,
                    float* out) {
  const auto copy_row = [&](const float* from, int64_t step, int64_t n, float* to) {
    normalise_row(from, step, n, rule, to);
  };
  gather_rows(in, strides, axes, padding, copy_row, out);
}

std::vector<AxisMap> identities(const std::vector<int64_t>& sides) {
  std::vector<AxisMap> axes;
  for (size_t axis = 0; axis < sides.size(); ++axis)
    axes.push_back(AxisMap::identity(sides[axis], axis));
  return axes;
}

std::vector<int64_t> sides_of(const std::vector<AxisMap>& axes) {
  std::vector<int64_t> sides;
  for (const AxisMap& axis : axes) sides.push_back(axis.size);
  return sides;
}

/// The window in the given sides; the memory of the result is used again by the next call of this
/// thread.
const Pixels& resized(const Pixels& pixels, const Window& window, const std::vector<int64_t>& sides,
                      const std::vector<float>& fill) {
  thread_local Pixels result;
  if (window.slice_axis < 0 && window.extent == window.sides)
    resize(pixels, window.origin, window.sides, sides, result);
  else
    result = resize(cut(pixels, window, fill), sides);
  return result;
}

config::AugmentUse use_of(const config::Source& source, const config::Model& model,
                          const std::vector<int64_t>& start) {
  return {start, model.image_size, channels_of(source, model), data::segments(model),
          !(source.normalize == "none"), config::detects(model)};
}

constexpr float kNoValue = std::numeric_limits<float>::quiet_NaN();

/// A box through index maps, cut at the edges of the result; x is the last axis.
LabelledBox through(const LabelledBox& box, const std::vector<AxisMap>& axes) {
  const float low[2] = {box.y0, box.x0}, high[2] = {box.y1, box.x1};
  float to_low[2], to_high[2];
  for (size_t i = 0; i < 2; ++i) {
    const AxisMap& map = axes[axes.size() - 2 + i];
    const size_t from = map.axis + 2 - axes.size();
    const auto start = static_cast<float>(map.start), side = static_cast<float>(map.size);
    const bool is_mirrored = map.step < 0;
    const float first = is_mirrored ? start + 1.0f - high[from] : low[from] - start;
    const float last = is_mirrored ? start + 1.0f - low[from] : high[from] - start;
    to_low[i] = std::clamp(first, 0.0f, side);
    to_high[i] = std::clamp(last, 0.0f, side);
  }
  const bool is_left = to_high[0] - to_low[0] >= 1.0f && to_high[1] - to_low[1] >= 1.0f;
  if (!is_left) return {0, 0, 0, 0, -1};
  return {to_low[1], to_low[0], to_high[1], to_high[0], box.label};
}

}  // namespace

Transform::Transform(const config::Source& source, const config::Model& model, bool training,
                     bool raw)
    : resize_(checked_resize(source, model.image_size)),
      target_(model.image_size),
      channels_(channels_of(source, model)),
      range_(source),
      steps_(parse_augment(source.augment, source_name(source))) {
  check_augment(steps_, use_of(source, model, steps_.has_window() ? target_ : resize_),
                source.augment, source_name(source));
  const NormalizeValues values = normalize_values(source, channels_);
  mean_.assign(values.mean.begin(), values.mean.end());
  std_.assign(values.std.begin(), values.std.end());
  if (!training || raw) steps_ = {};
  if (steps_.has_window()) resize_ = target_;
  if (raw) {
    std::fill(mean_.begin(), mean_.end(), 0.0f);
    std::fill(std_.begin(), std_.end(), 1.0f);
  }
}

int64_t Transform::values_per_sample() const { return channels_ * count(target_); }
int64_t Transform::pixels_per_sample() const { return count(target_); }
bool Transform::wants_plan() const { return steps_.needs_device(); }
int64_t Transform::plan_slots() const { return data::plan_slots(steps_, target_.size()); }
int64_t Transform::plan_bytes() const {
  return has_plan() ? data::plan_bytes(slots_, channels_) : 0;
}

void Transform::use_plan(int64_t slots) {
  VT_CHECK(slots >= plan_slots(), "[data] a plan of {} slots cannot hold the {} of this source",
           slots, plan_slots());
  slots_ = slots;
}

std::vector<int64_t> Transform::staging_sides() const {
  if (!has_plan()) return target_;
  for (size_t i = steps_.first_exact; i < steps_.first_device; ++i)
    if (steps_.steps[i].kind == AugmentKind::crop) return target_;
  return resize_;
}

Window Transform::checked_window(const Pixels& pixels, const std::string& path) const {
  VT_REQUIRE(DataError, pixels.sides.size() == target_.size(),
             "[data] {}: expected {} sides like model.image_size but the file has {}", path,
             target_.size(), describe(pixels.sides));
  return whole_window(0, pixels.sides);
}

Decoded Transform::prepare(Pixels pixels, Mask mask, const std::string& path) const {
  Decoded file;
  file.image = to_channels(std::move(pixels), channels_, path);
  file.mask = std::move(mask);
  file.range = range_.of(file.image);
  return file;
}

Window Transform::narrow(const Window& window, const AugmentPlace& place) const {
  if (!steps_.has_window()) return window;
  const CropBox box = draw_resized_crop(steps_.steps[0], 0, place, window.sample_sides());
  Window narrowed = window;
  for (size_t axis = 0, k = 0; axis < window.sides.size(); ++axis) {
    if (static_cast<int64_t>(axis) == window.slice_axis) continue;
    // A window may begin in the padding; nothing of the file is left then, but one pixel to read.
    const int64_t first = std::min(box.origin[k], std::max<int64_t>(window.extent[axis] - 1, 0));
    narrowed.origin[axis] = window.origin[axis] + first;
    narrowed.sides[axis] = box.sides[k];
    narrowed.extent[axis] = std::min(box.sides[k], window.extent[axis] - first);
    ++k;
  }
  return narrowed;
}

Transform::Staged Transform::stage(const Window& window, const AugmentPlace& place) const {
  Staged staged;
  staged.is_as_stored = window.sample_sides() == resize_;
  staged.axes = staged.is_as_stored ? axes_of(window) : identities(resize_);
  augment(staged.axes, steps_, place, target_);
  if (!has_plan()) center_crop(staged.axes, target_);
  return staged;
}

void Transform::place_image(const Decoded& file, const Window& window, const Staged& staged,
                            float* out) const {
  const Pixels& from =
      staged.is_as_stored ? file.image : resized(file.image, window, resize_, file.range.low);
  const std::vector<int64_t> strides = strides_of(from.sides, from.channels);
  const int64_t offset = staged.is_as_stored ? offset_of(window, strides) : 0;
  const int64_t plane = count(sides_of(staged.axes));
  with_values(from, [&](const auto& values) {
    for (size_t c = 0; c < static_cast<size_t>(channels_); ++c) {
      // A plan brings mean and std itself.
      const float mean = has_plan() ? 0.0f : mean_[c], std = has_plan() ? 1.0f : std_[c];
      const Normalisation rule{file.range.low[c], file.range.span[c], mean, std, file.range.clips};
      gather_channel(values.data() + offset + c, strides, staged.axes, rule, (0.0f - mean) / std,
                     out + static_cast<int64_t>(c) * plane);
    }
  });
}

void Transform::place_mask(const Mask& mask, const Window& window, const Staged& staged,
                           int64_t* out) const {
  if (mask.empty()) {
    std::fill_n(out, count(sides_of(staged.axes)), int64_t{-1});
    return;
  }
  Mask resized_mask;
  if (!staged.is_as_stored) resized_mask = resize(cut(mask, window), resize_);
  const Mask& classes = staged.is_as_stored ? mask : resized_mask;
  const std::vector<int64_t> strides = strides_of(classes.sides, 1);
  gather(
      classes.classes.data() + (staged.is_as_stored ? offset_of(window, strides) : 0), strides,
      staged.axes, int64_t{-1}, [](int32_t value) { return static_cast<int64_t>(value); }, out);
}

void Transform::place_values(const Pixels& values, const Window& window, const Staged& staged,
                             float* out) const {
  VT_CHECK(values.is_float(), "[data] values to be learnt must be floats but are bytes");
  const std::vector<float> fill(static_cast<size_t>(values.channels), kNoValue);
  const Pixels& from = staged.is_as_stored ? values : resized(values, window, resize_, fill);
  const std::vector<int64_t> strides = strides_of(from.sides, from.channels);
  const int64_t offset = staged.is_as_stored ? offset_of(window, strides) : 0;
  const int64_t plane = count(sides_of(staged.axes));
  for (int64_t v = 0; v < from.channels; ++v)
    gather(
        from.floats.data() + offset + v, strides, staged.axes, kNoValue,
        [](float value) { return value; }, out + v * plane);
}

void Transform::place_boxes(const std::vector<LabelledBox>& boxes, const Window& window,
                            const Staged& staged, const Placed& out) const {
  int64_t placed = 0;
  // As stored, the maps lead out of the file itself; else out of the resized window.
  const auto sides = static_cast<size_t>(window.sides.size());
  float shift[2] = {0, 0}, scale[2] = {1, 1};
  for (size_t i = 0; i < 2 && !staged.is_as_stored; ++i) {
    const size_t axis = sides - 2 + i;
    shift[i] = static_cast<float>(window.origin[axis]);
    scale[i] = static_cast<float>(resize_[resize_.size() - 2 + i]) /
               static_cast<float>(window.sides[axis]);
  }
  for (LabelledBox box : boxes) {
    box.x0 = (box.x0 - shift[1]) * scale[1];
    box.x1 = (box.x1 - shift[1]) * scale[1];
    box.y0 = (box.y0 - shift[0]) * scale[0];
    box.y1 = (box.y1 - shift[0]) * scale[0];
    box = through(box, staged.axes);
    if (box.label < 0 || placed == out.max_boxes) continue;
    float* at = out.boxes + 4 * placed;
    at[0] = box.x0, at[1] = box.y0, at[2] = box.x1, at[3] = box.y1;
    out.box_classes[placed++] = box.label;
  }
  std::fill(out.boxes + 4 * placed, out.boxes + 4 * out.max_boxes, 0.0f);
  std::fill(out.box_classes + placed, out.box_classes + out.max_boxes, int64_t{-1});
}

void Transform::apply(const Decoded& file, const Beside& beside, const Window& window,
                      const AugmentPlace& place, const Placed& out) const {
  VT_CHECK(has_plan() == (out.plan != nullptr),
           "[data] a sample needs room for its plan exactly when its source has one");
  const Staged staged = stage(window, place);
  if (out.image != nullptr) place_image(file, window, staged, out.image);
  if (out.mask != nullptr) place_mask(file.mask, window, staged, out.mask);
  if (out.values != nullptr && beside.values != nullptr)
    place_values(*beside.values, window, staged, out.values);
  static const std::vector<LabelledBox> kNone;
  if (out.boxes != nullptr)
    place_boxes(beside.boxes != nullptr ? *beside.boxes : kNone, window, staged, out);
  if (out.plan != nullptr)
    plan_row(steps_, place, {sides_of(staged.axes), target_, mean_, std_}, slots_, out.plan);
}

void Transform::apply(const Decoded& file, const Window& window, const AugmentPlace& place,
                      float* image, int64_t* mask) const {
  Placed out;
  out.image = image;
  out.mask = mask;
  apply(file, {}, window, place, out);
}

void Transform::apply(Pixels pixels, const AugmentPlace& place, const std::string& path,
                      float* out) const {
  const Window window = narrow(checked_window(pixels, path), place);
  apply(prepare(std::move(pixels), {}, path), window, place, out, nullptr);
}

}  // namespace vitrail::data
