// Maps of importance against straight loops, their batched form, and what a GPU's threads compute.

#include "vitrail/patching/importance.h"

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/patching/edge_samples.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/edges_pixel.h"

namespace vitrail::patching {
namespace {

using test::product;
using test::random_bytes;
using test::shapes;
using test::spiral;

LeafOptions by(Importance importance, int64_t channel = 0) {
  LeafOptions options;
  options.importance = importance;
  options.importance_channel = channel;
  return options;
}

std::vector<uint8_t> map_of(const std::vector<uint8_t>& bytes, int64_t channels,
                            const std::vector<int64_t>& sides, const LeafOptions& options,
                            const EdgeOptions& edges = {}, const Runner& run = {}) {
  std::vector<uint8_t> map(static_cast<size_t>(product(sides)));
  importance_map(bytes, channels, sides, options, edges, map, run);
  return map;
}

/// A channel as a volume; images have one plane.
struct Array {
  std::array<int64_t, 3> sides{1, 1, 1};
  std::vector<double> values;

  Array(const std::vector<uint8_t>& bytes, int64_t c, const std::vector<int64_t>& sides_) {
    std::copy(sides_.begin(), sides_.end(), sides.end() - std::ssize(sides_));
    const auto pixels = product(sides_);
    values.assign(bytes.begin() + c * pixels, bytes.begin() + (c + 1) * pixels);
  }
  double at(std::array<int64_t, 3> place, bool mirror) const {
    int64_t index = 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      int64_t p = place[axis];
      const int64_t n = sides[axis];
      while (mirror && n > 1 && (p < 0 || p >= n)) p = p < 0 ? -p : 2 * (n - 1) - p;
      index = index * n + std::clamp<int64_t>(p, 0, n - 1);
    }
    return values[static_cast<size_t>(index)];
  }
  /// sum over the neighbours of the products of weights[axis][offset + radius].
  double sum(std::array<int64_t, 3> place, const std::vector<std::vector<double>>& weights,
             bool mirror) const {
    const auto reach = [&](size_t axis) { return std::ssize(weights[axis]) / 2; };
    double total = 0;
    for (int64_t z = -reach(0); z <= reach(0); ++z)
      for (int64_t y = -reach(1); y <= reach(1); ++y)
        for (int64_t x = -reach(2); x <= reach(2); ++x)
          total += weights[0][static_cast<size_t>(z + reach(0))] *
                   weights[1][static_cast<size_t>(y + reach(1))] *
                   weights[2][static_cast<size_t>(x + reach(2))] *
                   at({place[0] + z, place[1] + y, place[2] + x}, mirror);
    return total;
  }
  template <class Body>
  void for_places(Body&& body) const {
    for (int64_t z = 0; z < sides[0]; ++z)
      for (int64_t y = 0; y < sides[1]; ++y)
        for (int64_t x = 0; x < sides[2]; ++x) body(std::array<int64_t, 3>{z, y, x});
  }
};

const std::vector<double> kNone{1}, kSmooth{1, 2, 1}, kWide{1, 4, 6, 4, 1}, kStep{-1, 0, 1},
    kFive{1, 1, 1, 1, 1};

std::vector<double> plain_gradient(Array array, size_t axes, int64_t blur) {
  const std::vector<double>& taps = blur == 1 ? kNone : blur == 3 ? kSmooth : kWide;
  const double total = std::pow(blur == 1 ? 1 : blur == 3 ? 4 : 16, axes);
  const std::vector<double>& first = axes == 3 ? taps : kNone;
  Array blurred = array;
  size_t i = 0;
  array.for_places([&](auto place) {
    blurred.values[i++] = std::floor(array.sum(place, {first, taps, taps}, true) / total + 0.5);
  });
  std::vector<double> map;
  blurred.for_places([&](auto place) {
    double squares = 0;
    for (size_t axis = 3 - axes; axis < 3; ++axis) {
      std::vector<std::vector<double>> weights{axes == 3 ? kSmooth : kNone, kSmooth, kSmooth};
      weights[axis] = kStep;
      const double part = blurred.sum(place, weights, false) / (axes == 3 ? 4 : 1);
      squares += part * part;
    }
    map.push_back(std::min(255.0, std::floor(std::sqrt(squares) / 4)));
  });
  return map;
}

std::vector<double> plain_variance(const Array& array, size_t axes) {
  std::vector<double> map;
  const double count = axes == 3 ? 125 : 25;
  size_t i = 0;
  array.for_places([&](auto place) {
    const double sum = array.sum(place, {axes == 3 ? kFive : kNone, kFive, kFive}, true);
    // Whole numbers below 2^53, so that the floor is that of the true quotient.
    const double difference = count * array.values[i++] - sum;
    map.push_back(std::min(255.0, std::floor(difference * difference / (16 * count * count))));
  });
  return map;
}

const std::vector<std::vector<int64_t>> kSides{{37, 53},  {1, 1},    {1, 40},     {40, 1},
                                               {2, 2},    {300, 7},  {9, 17, 21}, {1, 12, 13},
                                               {5, 1, 1}, {2, 3, 2}, {3, 1, 19}};

TEST(Importance, GradientAndVarianceAreThoseOfStraightLoops) {
  for (const auto& sides : kSides)
    for (const int64_t blur : {1, 3, 5}) {
      const auto bytes = shapes(2, sides, blur);
      const EdgeOptions edges{blur, 75, 125};
      std::vector<double> gradient(static_cast<size_t>(product(sides)), 0), variance = gradient;
      for (int64_t c = 0; c < 2; ++c) {
        const Array array(bytes, c, sides);
        const auto channel = plain_gradient(array, sides.size(), blur);
        const auto other = plain_variance(array, sides.size());
        for (size_t i = 0; i < channel.size(); ++i) {
          gradient[i] = std::max(gradient[i], channel[i]);
          variance[i] = std::max(variance[i], other[i]);
        }
      }
      const auto as_bytes = [](const std::vector<double>& values) {
        return std::vector<uint8_t>(values.begin(), values.end());
      };
      EXPECT_EQ(map_of(bytes, 2, sides, by(Importance::gradient), edges), as_bytes(gradient))
          << sides[0] << " blur " << blur;
      EXPECT_EQ(map_of(bytes, 2, sides, by(Importance::variance), edges), as_bytes(variance))
          << sides[0];
    }
}

TEST(Importance, ReachesItsLargestValueAndNoFurther) {
  for (const auto& sides : {std::vector<int64_t>{20, 20}, {20, 20, 20}}) {
    const auto bytes = random_bytes(product(sides), 1, 2);
    std::vector<uint8_t> extreme;
    for (const uint8_t bit : bytes) extreme.push_back(bit ? 255 : 0);
    const auto variance = map_of(extreme, 1, sides, by(Importance::variance));
    EXPECT_EQ(*std::ranges::max_element(variance), 255);
    std::vector<uint8_t> step(extreme.size());
    for (size_t i = 0; i < step.size(); ++i) step[i] = i % 20 < 10 ? 0 : 255;
    const auto gradient = map_of(step, 1, sides, by(Importance::gradient), {1, 75, 125});
    for (size_t i = 0; i < step.size(); ++i)
      EXPECT_EQ(gradient[i], i % 20 == 9 || i % 20 == 10 ? 255 : 0) << i;
  }
}

TEST(Importance, OfFlatImagesIsNone) {
  for (const auto& sides : kSides)
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance})
      for (const uint8_t value : {0, 7, 255}) {
        const std::vector<uint8_t> bytes(static_cast<size_t>(3 * product(sides)), value);
        const auto map = map_of(bytes, 3, sides, by(importance), {5, 0, 0});
        EXPECT_EQ(std::ranges::count(map, 0), std::ssize(map));
      }
}

TEST(Importance, OfASingleBrightPixelLiesAroundIt) {
  for (const auto& sides : {std::vector<int64_t>{15, 15}, {15, 15, 15}})
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance}) {
      std::vector<uint8_t> bytes(static_cast<size_t>(product(sides)), 10);
      bytes[bytes.size() / 2] = 250;
      const auto map = map_of(bytes, 1, sides, by(importance), {1, 75, 125});
      int64_t found = 0;
      for (size_t i = 0; i < map.size(); ++i) {
        if (map[i] == 0) continue;
        ++found;
        auto rest = static_cast<int64_t>(i);
        for (size_t axis = 0; axis < sides.size(); ++axis, rest /= 15)
          EXPECT_LE(std::abs(rest % 15 - 7), 2);
      }
      EXPECT_GT(found, 0);
    }
}

TEST(Importance, GivenIsTheChannelItself) {
  const auto bytes = random_bytes(3 * 30, 5);
  const auto map = map_of(bytes, 3, {5, 6}, by(Importance::given, 2));
  EXPECT_EQ(map, std::vector<uint8_t>(bytes.end() - 30, bytes.end()));
  EXPECT_THROW(map_of(bytes, 3, {5, 6}, by(Importance::given, 3)), core::Error);
}

TEST(Importance, DoesNotDependOnStrips) {
  const Runner backwards = [](int64_t count, const std::function<void(int64_t)>& part) {
    EXPECT_GT(count, 1);
    for (int64_t i = count; i-- > 0;) part(i);
  };
  for (const auto& sides : {std::vector<int64_t>{70, 9000}, {5, 70, 2000}})
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance}) {
      const auto bytes = shapes(1, sides, 2);
      const EdgeOptions edges{5, 40, 90};
      EXPECT_EQ(map_of(bytes, 1, sides, by(importance), edges, backwards),
                map_of(bytes, 1, sides, by(importance), edges));
    }
}

/// What the GPU's kernels do, one thread after another.
std::vector<uint8_t> by_pixels(const std::vector<uint8_t>& bytes, int64_t channels,
                               const std::vector<int64_t>& sides, Importance importance,
                               const EdgeOptions& edges) {
  const auto pixels = static_cast<size_t>(product(sides));
  const std::array<int32_t, 3> options{static_cast<int32_t>(edges.blur),
                                       static_cast<int32_t>(edges.low),
                                       static_cast<int32_t>(edges.high)};
  std::vector<uint8_t> blurred(bytes.size()), states(pixels), map(pixels);
  std::vector<int32_t> norms(pixels);
  EdgeBatch e;
  e.bytes = bytes.data(), e.options = options.data(), e.batch = 1, e.channels = channels;
  for (size_t a = 0; a < sides.size(); ++a)
    e.sides[3 - sides.size() + a] = static_cast<int32_t>(sides[a]);
  e.is_volume = sides.size() == 3;
  e.blurred = blurred.data(), e.norms = norms.data(), e.states = states.data();
  e.map = map.data();
  const auto for_pixels = [&](auto&& step) {
    for (size_t i = pixels; i-- > 0;) step(static_cast<int32_t>(i));
  };
  if (importance == Importance::variance) {
    for_pixels([&](int32_t i) { variance_pixel(e, 0, i); });
    return map;
  }
  for (int64_t c = 0; c < channels; ++c) for_pixels([&](int32_t i) { blur_pixel(e, 0, c, i); });
  if (importance == Importance::gradient) {
    for_pixels([&](int32_t i) { gradient_pixel(e, 0, i); });
    return map;
  }
  for (const auto step :
       {norm_pixel, ridge_pixel, plant_pixel, join_pixel, raise_pixel, mark_pixel})
    for_pixels([&](int32_t i) { step(e, 0, i); });
  return map;
}

TEST(Importance, OfPixelsOneByOneIsThatOfRows) {
  std::vector<std::vector<int64_t>> all = kSides;
  all.insert(all.end(), {{64, 64}, {33, 40, 27}});
  for (const auto& sides : all)
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance})
      for (const EdgeOptions& edges :
           {EdgeOptions{1, 75, 125}, EdgeOptions{3, 60, 200}, EdgeOptions{5, 20, 110}}) {
        for (const auto& bytes : {shapes(3, sides, 4), random_bytes(3 * product(sides), 7)})
          EXPECT_EQ(by_pixels(bytes, 3, sides, importance, edges),
                    map_of(bytes, 3, sides, by(importance), edges))
              << "sides " << sides[0] << " " << sides[1] << " blur " << edges.blur;
      }
}

TEST(Importance, FollowsLongEdges) {
  for (const auto& sides : {std::vector<int64_t>{131, 141}, {9, 131, 128}}) {
    const auto bytes = spiral(sides);
    const EdgeOptions edges{1, 30, 125};
    const auto map = map_of(bytes, 1, sides, by(Importance::edges), edges);
    const auto count = std::ranges::count(map, 1);
    std::printf("%lld edge pixels of one spiral\n", static_cast<long long>(count));
    EXPECT_GT(count, 2000);
    EXPECT_EQ(by_pixels(bytes, 1, sides, Importance::edges, edges), map);
    std::vector<uint8_t> faint;
    for (const uint8_t byte : bytes)
      faint.push_back(std::min(byte, static_cast<uint8_t>(test::kFaint)));
    EXPECT_EQ(std::ranges::count(map_of(faint, 1, sides, by(Importance::edges), edges), 1), 0);
  }
}

at::Tensor tensor_of(std::vector<uint8_t>& bytes, const std::vector<int64_t>& shape) {
  return at::from_blob(bytes.data(), shape, at::kByte).clone();
}

TEST(Importance, OfABatchIsThatOfItsSamples) {
  const std::vector<int64_t> sides{19, 23};
  for (const int64_t batch : {1, 7}) {
    auto bytes = shapes(batch * 3, sides, 3);
    std::vector<int32_t> rows;
    const at::Tensor ids = at::empty({batch}, at::kLong);
    for (int64_t b = 0; b < batch; ++b) ids.mutable_data_ptr<int64_t>()[b] = 100 + b;
    const at::Tensor edges = edge_options({}, 5, 2, ids, true);
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance, Importance::given}) {
      const at::Tensor maps =
          importance_maps(tensor_of(bytes, {batch, 3, 19, 23}), by(importance, 1), edges);
      for (int64_t b = 0; b < batch; ++b) {
        const std::vector<uint8_t> sample(bytes.begin() + b * 3 * 437,
                                          bytes.begin() + (b + 1) * 3 * 437);
        auto expected = map_of(sample, 3, sides, by(importance, 1), drawn_edges(5, 2, 100 + b));
        EXPECT_TRUE(at::equal(maps[b], tensor_of(expected, sides)));
      }
    }
  }
}

TEST(Importance, OptionsOfABatchAreThoseOfItsSamples) {
  at::Tensor ids = at::empty({50}, at::kLong);
  for (int64_t b = 0; b < 50; ++b) ids.mutable_data_ptr<int64_t>()[b] = 3 * b + (int64_t{1} << 40);
  const at::Tensor drawn = edge_options({}, 9, 4, ids, true),
                   fixed = edge_options({}, 9, 4, ids, false);
  for (int64_t b = 0; b < 50; ++b) {
    const auto row = [b](const at::Tensor& options) {
      const int32_t* values = options.const_data_ptr<int32_t>() + 3 * b;
      return EdgeOptions{values[0], values[1], values[2]};
    };
    EXPECT_EQ(row(drawn), drawn_edges(9, 4, 3 * b + (int64_t{1} << 40)));
    EXPECT_EQ(row(fixed), EdgeOptions{});
  }
}

TEST(Importance, BytesOfABatchAreThoseOfItsSamples) {
  const auto draws = random_bytes(4 * 2 * 30, 6);
  at::Tensor image = at::empty({4, 2, 5, 6}, at::kFloat), range = at::empty({4, 2, 2}, at::kFloat);
  for (size_t i = 0; i < draws.size(); ++i)
    image.mutable_data_ptr<float>()[i] = 0.013f * static_cast<float>(draws[i]) - 1.1f;
  for (int64_t b = 0; b < 4; ++b) {
    const float black = -1.0f - 0.2f * static_cast<float>(b), white = b == 2 ? black : 1.5f;
    for (int64_t c = 0; c < 2; ++c) range[b][c][0] = black, range[b][c][1] = white;
  }
  for (const at::Tensor& ranges : {range, at::Tensor()}) {
    const at::Tensor bytes = to_bytes(image, ranges);
    for (int64_t b = 0; b < 4; ++b) {
      std::vector<uint8_t> expected(60);
      const float* pixels = image.const_data_ptr<float>() + b * 60;
      const float* row = ranges.defined() ? ranges.const_data_ptr<float>() + b * 4 : nullptr;
      scale_to_bytes({pixels, 60}, 2, {row, ranges.defined() ? size_t{4} : 0}, expected);
      EXPECT_TRUE(at::equal(bytes[b], tensor_of(expected, {2, 5, 6})));
    }
  }
}

TEST(Importance, NamesTheSampleWithoutNumbers) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    at::Tensor image = at::empty({3, 2, 4, 4}, at::kFloat).fill_(0.5);
    image[1][1][2][2] = bad;
    try {
      to_bytes(image, {});
      FAIL();
    } catch (const core::Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("channel 1 of the batch's sample 1"));
    }
  }
}

TEST(Importance, RefusesOtherShapes) {
  const at::Tensor bytes = at::empty({2, 1, 4, 4}, at::kByte).fill_(3);
  const at::Tensor edges = edge_options({}, 0, 0, at::empty({2}, at::kLong).fill_(0), false);
  EXPECT_THROW(importance_maps(bytes, by(Importance::edges), edges.slice(0, 0, 1)), core::Error);
  EXPECT_THROW(importance_maps(bytes.to(at::kFloat), by(Importance::edges), edges), core::Error);
  EXPECT_THROW(importance_maps(bytes[0], by(Importance::edges), edges), core::Error);
  EXPECT_THROW(importance_maps(bytes, by(Importance::given, 1), edges), core::Error);
  EXPECT_THROW(to_bytes(bytes.to(at::kFloat), edges.to(at::kFloat)), core::Error);
}

}  // namespace
}  // namespace vitrail::patching
