#include <algorithm>
#include <charconv>

#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

constexpr int64_t kDefaultSize = 4096;
// Labels and masks draw beside the pixels, in their own layers.
constexpr core::DrawKey kPixelKey{0, core::Stream::noise, 0, 0};
constexpr core::DrawKey kLabelKey{0, core::Stream::noise, 0, 1};
constexpr core::DrawKey kMaskKey{0, core::Stream::noise, 0, 2};
constexpr core::DrawKey kValueKey{0, core::Stream::noise, 0, 3};
constexpr core::DrawKey kBoxKey{0, core::Stream::noise, 0, 4};
constexpr int64_t kBoxes = 6;

class RandomReader : public Reader {
 public:
  RandomReader(int64_t size, int64_t channels, const config::Model& model)
      : Reader(channels),
        size_(size),
        classes_(std::max<int64_t>(model.num_classes, 1)),
        has_masks_(data::segments(model)),
        values_(data::regresses(model) ? model.num_classes : 0),
        has_value_images_(values_ > 0 && !(model.kind == "vit")),
        has_boxes_(config::detects(model)),
        shape_{model.image_size, channels} {}

  int64_t size() const override { return size_; }

  SampleInfo describe(int64_t i) const override {
    SampleInfo info{fmt::format("random/{}", i)};
    if (!has_masks_ && values_ == 0)
      info.label = class_of(core::draw(kLabelKey, static_cast<uint64_t>(i), 0));
    if (values_ > 0 && !has_value_images_) info.values = values(i, values_);
    return info;
  }

  bool has_value_images() const override { return has_value_images_; }

  Pixels decode_values(int64_t i) const override {
    Pixels pixels;
    pixels.sides = shape_.sides;
    pixels.channels = values_;
    pixels.full_scale = 1.0f;
    pixels.floats = values(i, count(pixels.sides) * values_);
    return pixels;
  }

  bool has_masks() const override { return has_masks_; }

  Mask decode_mask(int64_t i) const override {
    Mask mask{shape_.sides, std::vector<int32_t>(static_cast<size_t>(count(shape_.sides)))};
    core::Philox4 bits{};
    for (size_t p = 0; p < mask.classes.size(); ++p) {
      if (p % 4 == 0)
        bits = core::draw4(kMaskKey, static_cast<uint64_t>(i), static_cast<uint32_t>(p / 4));
      mask.classes[p] = static_cast<int32_t>(class_of(bits.x[p % 4]));
    }
    return mask;
  }

  int64_t max_boxes() const override { return has_boxes_ ? kBoxes : 0; }

  /// Somewhere in the image, a quarter to a half of its sides.
  std::vector<LabelledBox> boxes(int64_t i) const override {
    std::vector<LabelledBox> boxes(static_cast<size_t>(max_boxes()));
    const auto height = static_cast<float>(shape_.sides[0]);
    const auto width = static_cast<float>(shape_.sides[1]);
    for (uint32_t k = 0; k < boxes.size(); ++k) {
      const auto share = [&](uint32_t n) {
        return core::uniform(kBoxKey, static_cast<uint64_t>(i), 8 * k + n);
      };
      const float y = share(0) * height / 2, x = share(1) * width / 2;
      boxes[k] = {x, y, x + (1 + share(2)) * width / 4, y + (1 + share(3)) * height / 4,
                  class_of(core::draw(kBoxKey, static_cast<uint64_t>(i), 8 * k + 4))};
    }
    return boxes;
  }

  Shape shape(int64_t) const override { return shape_; }

  Pixels decode(int64_t i) const override {
    Pixels pixels;
    pixels.sides = shape_.sides;
    pixels.channels = shape_.channels;
    pixels.values.resize(static_cast<size_t>(count(pixels.sides) * pixels.channels));
    // Four words of a draw are sixteen pixels.
    uint8_t* to = pixels.values.data();
    for (size_t left = pixels.values.size(), block = 0; left > 0; ++block) {
      const core::Philox4 bits =
          core::draw4(kPixelKey, static_cast<uint64_t>(i), static_cast<uint32_t>(block));
      const size_t n = std::min(left, sizeof(bits.x));
      to = std::copy_n(reinterpret_cast<const uint8_t*>(bits.x), n, to);
      left -= n;
    }
    return pixels;
  }

 private:
  static std::vector<float> values(int64_t i, int64_t n) {
    std::vector<float> drawn(static_cast<size_t>(n));
    for (size_t k = 0; k < drawn.size(); ++k)
      drawn[k] = core::uniform(kValueKey, static_cast<uint64_t>(i), static_cast<uint32_t>(k));
    return drawn;
  }

  int64_t class_of(uint32_t bits) const {
    return static_cast<int64_t>(bits % static_cast<uint64_t>(classes_));
  }

  int64_t size_, classes_;
  bool has_masks_;
  int64_t values_;
  bool has_value_images_, has_boxes_;
  Shape shape_;
};

int64_t parse_size(const config::Source& source) {
  if (source.root.empty()) return kDefaultSize;
  int64_t size = 0;
  const char* last = source.root.data() + source.root.size();
  const auto [end, error] = std::from_chars(source.root.data(), last, size);
  VT_REQUIRE(ConfigError, error == std::errc() && end == last && size > 0,
             "[data] source '{}': root of the reader random must be empty or a number of samples "
             "but is '{}'",
             source_name(source), source.root);
  return size;
}

}  // namespace

std::unique_ptr<Reader> open_random(const config::Source& source, const config::Model& model) {
  return std::make_unique<RandomReader>(parse_size(source), channels_of(source, model), model);
}

}  // namespace vitrail::data
