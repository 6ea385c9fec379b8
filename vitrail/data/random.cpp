#include <algorithm>
#include <charconv>

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

class RandomReader : public Reader {
 public:
  RandomReader(int64_t size, int64_t channels, const config::Model& model)
      : Reader(channels),
        size_(size),
        classes_(std::max<int64_t>(model.num_classes, 1)),
        has_masks_(segments(model)),
        values_(regresses(model) ? model.num_classes : 0),
        has_value_images_(values_ > 0 && !(model.kind == "vit")),
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
  bool has_value_images_;
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
