#include <algorithm>
#include <charconv>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

constexpr int64_t kDefaultSize = 4096;
// Labels draw beside the pixels, in their own layer.
constexpr core::DrawKey kPixelKey{0, core::Stream::noise, 0, 0};
constexpr core::DrawKey kLabelKey{0, core::Stream::noise, 0, 1};

class RandomReader : public Reader {
 public:
  RandomReader(int64_t size, const config::Model& model)
      : Reader(model.in_channels),
        size_(size),
        classes_(std::max<int64_t>(model.num_classes, 1)),
        shape_{model.image_size, model.in_channels} {}

  int64_t size() const override { return size_; }

  SampleInfo describe(int64_t i) const override {
    const uint32_t bits = core::draw(kLabelKey, static_cast<uint64_t>(i), 0);
    return {fmt::format("random/{}", i),
            static_cast<int64_t>(bits % static_cast<uint64_t>(classes_))};
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
  int64_t size_, classes_;
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
  return std::make_unique<RandomReader>(parse_size(source), model);
}

}  // namespace vitrail::data
