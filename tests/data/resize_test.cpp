#include "vitrail/data/resize.h"

#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/data/resize_rows.h"

namespace vitrail::data {
namespace {

/// Along one axis, pixel by pixel, from the definition: weights of a triangle as wide as a source
/// pixel or a result pixel, whichever is wider.
double by_definition(const std::vector<double>& line, int64_t results, int64_t i) {
  const auto n = static_cast<double>(line.size());
  const double scale = n / static_cast<double>(results), support = std::max(scale, 1.0);
  const double centre = scale * (static_cast<double>(i) + 0.5);
  double sum = 0, total = 0;
  for (size_t j = 0; j < line.size(); ++j) {
    const double weight =
        std::max(0.0, 1.0 - std::abs(static_cast<double>(j) + 0.5 - centre) / support);
    sum += weight * line[j];
    total += weight;
  }
  return sum / total;
}

TEST(Resize, EqualsItsDefinitionForAnySidesAndChannels) {
  double worst = 0;
  uint64_t number = 0;
  for (const int64_t channels : {1, 2, 3, 5})
    for (const int64_t from : {1, 2, 7, 37, 64})
      for (const int64_t to : {1, 3, 8, 40})
        for (const int64_t other : {1, 3, 8, 33}) {
          const Pixels image = test::noise({from, other}, channels, ++number);
          Pixels turned = image;  // the same along the last axis
          turned.sides = {other, from};
          for (int64_t y = 0; y < from; ++y)
            for (int64_t x = 0; x < other; ++x)
              for (int64_t c = 0; c < channels; ++c)
                turned.values[static_cast<size_t>((x * from + y) * channels + c)] =
                    image.values[static_cast<size_t>((y * other + x) * channels + c)];
          const Pixels down = resize(image, {to, other}), across = resize(turned, {other, to});
          for (int64_t x = 0; x < other; ++x)
            for (int64_t c = 0; c < channels; ++c) {
              std::vector<double> line;
              for (int64_t y = 0; y < from; ++y)
                line.push_back(image.values[static_cast<size_t>((y * other + x) * channels + c)]);
              for (int64_t i = 0; i < to; ++i) {
                const double expected = by_definition(line, to, i);
                const double a = down.floats[static_cast<size_t>((i * other + x) * channels + c)];
                const double b = across.floats[static_cast<size_t>((x * to + i) * channels + c)];
                worst = std::max({worst, std::abs(a - expected), std::abs(b - expected)});
              }
            }
        }
  std::printf("  worst difference %.2e of 255\n", worst);
  // Centres up to 64 and values up to 255 in float: a few 1e-6 of weight times 255.
  EXPECT_LT(worst, 2e-3);
}

TEST(Resize, APartEqualsTheResizeOfItsCopy) {
  const Pixels volume = test::noise({9, 14, 21}, 2);
  const std::vector<int64_t> origin{2, 3, 5}, extent{5, 11, 13};
  Pixels copy;
  copy.sides = extent;
  copy.channels = 2;
  for (int64_t z = 0; z < extent[0]; ++z)
    for (int64_t y = 0; y < extent[1]; ++y)
      for (int64_t x = 0; x < 2 * extent[2]; ++x)
        copy.values.push_back(volume.values[static_cast<size_t>(
            ((z + origin[0]) * 14 + y + origin[1]) * 21 * 2 + 2 * origin[2] + x)]);
  Pixels result;
  for (const std::vector<int64_t>& sides : std::vector<std::vector<int64_t>>{
           {5, 11, 13}, {8, 11, 13}, {5, 4, 13}, {5, 11, 30}, {7, 7, 7}}) {
    resize(volume, origin, extent, sides, result);  // into the memory of the one before
    EXPECT_EQ(result.sides, sides);
    EXPECT_EQ(result.floats, resize(copy, sides).floats) << describe(sides);
  }
}

TEST(Resize, BytesAndTheSameFloatsGiveTheSameResult) {
  const Pixels bytes = test::noise({33, 47}, 3);
  Pixels floats = bytes;
  floats.floats.assign(bytes.values.begin(), bytes.values.end());
  floats.values.clear();
  EXPECT_EQ(resize(bytes, {20, 60}).floats, resize(floats, {20, 60}).floats);
}

}  // namespace
}  // namespace vitrail::data
