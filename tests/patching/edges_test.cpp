// Canny against what OpenCV gives for a pattern of whole numbers, and
// the volume form against straight loops.

#include "vitrail/patching/edges.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::patching {
namespace {

constexpr core::DrawKey kKey{5, core::Stream::test, 0, 0};

uint64_t fnv(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
  return hash;
}

/// Rings, grains and a disc from whole numbers alone, the same in any language.
std::vector<uint8_t> pattern(int64_t channels, int64_t height, int64_t width) {
  std::vector<uint8_t> bytes;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t rings = ((x * x * 3 + y * y * 5 + x * y * (c + 1)) >> 6) & 255;
        const int64_t noise = ((x * 7919 + y * 104729 + c * 1299709) * 2654435761 >> 7) % 61;
        const int64_t dx = x - width / 2, dy = y - height / 3, r = height / 4;
        const int64_t disc = dx * dx + dy * dy < r * r ? 90 : 0;
        bytes.push_back(
            static_cast<uint8_t>(std::clamp<int64_t>(rings / 2 + noise + disc, 0, 255)));
      }
  return bytes;
}

std::vector<uint8_t> edges_of(const std::vector<uint8_t>& bytes, int64_t channels,
                              const std::vector<int64_t>& sides, const EdgeOptions& options) {
  std::vector<uint8_t> edges(bytes.size() / static_cast<size_t>(channels));
  edge_map(bytes, channels, sides, options, edges);
  return edges;
}

/// cv2.Canny(cv2.GaussianBlur(image, (blur, blur), 0), low, low + 50) of pattern(), opencv-python 4.14.0.
struct Golden {
  int64_t channels, height, width, blur, low, count;
  uint64_t hash;
};
constexpr Golden kOpenCv[] = {{1, 61, 97, 1, 50, 1722, 0x3cc02799380208e1},
                              {1, 61, 97, 1, 75, 1590, 0xf5df534916367ad7},
                              {1, 61, 97, 1, 99, 1218, 0xb581b62dc1781919},
                              {1, 61, 97, 3, 50, 712, 0xb4fbcedd65358a83},
                              {1, 61, 97, 3, 75, 289, 0xb28b724f0eedf89c},
                              {1, 61, 97, 3, 99, 277, 0x6d1afedbef91d87c},
                              {1, 61, 97, 5, 50, 312, 0xf0fc1d885c4ff98d},
                              {1, 61, 97, 5, 75, 282, 0xc9558d618f79d42b},
                              {3, 48, 64, 1, 50, 1166, 0x92e9d96dee17d34b},
                              {3, 48, 64, 1, 75, 1156, 0xebba0aaea340eaeb},
                              {3, 48, 64, 1, 99, 1043, 0xc3622587aa0a5be0},
                              {3, 48, 64, 3, 50, 308, 0x98f08b70d20963e1},
                              {3, 48, 64, 3, 75, 247, 0x5d9d1bf3abfde1a2},
                              {3, 48, 64, 5, 50, 260, 0xbce2dfe41294dc63},
                              {3, 48, 64, 5, 75, 247, 0x0a80f8f6afeeaa58},
                              {1, 60, 9000, 5, 50, 77944, 0x8712e62bc93200b1}};  // in several slabs

TEST(Edges, OfImagesAreThoseOfOpenCv) {
  for (const Golden& golden : kOpenCv) {
    const auto edges =
        edges_of(pattern(golden.channels, golden.height, golden.width), golden.channels,
                 {golden.height, golden.width}, {golden.blur, golden.low, golden.low + 50});
    const auto count = std::count(edges.begin(), edges.end(), 1);
    EXPECT_EQ(count, golden.count) << "blur " << golden.blur << " low " << golden.low;
    EXPECT_EQ(fnv(edges), golden.hash) << "blur " << golden.blur << " low " << golden.low;
  }
}

/// A volume and its sides, read with the border that each step asks for.
struct Volume {
  std::vector<int64_t> sides;
  std::vector<double> values;

  double at(int64_t z, int64_t y, int64_t x) const {
    const int64_t place[3] = {z, y, x};
    int64_t index = 0;
    for (size_t axis = 0; axis < 3; ++axis)
      index = index * sides[axis] + std::clamp<int64_t>(place[axis], 0, sides[axis] - 1);
    return values[static_cast<size_t>(index)];
  }
  double reflected(int64_t z, int64_t y, int64_t x) const {
    int64_t place[3] = {z, y, x};
    for (size_t axis = 0; axis < 3; ++axis) {
      const int64_t n = sides[axis];
      if (place[axis] < 0) place[axis] = -place[axis];
      if (place[axis] >= n) place[axis] = 2 * (n - 1) - place[axis];
    }
    return at(place[0], place[1], place[2]);
  }
  bool inside(int64_t z, int64_t y, int64_t x) const {
    return z >= 0 && y >= 0 && x >= 0 && z < sides[0] && y < sides[1] && x < sides[2];
  }
};

template <class Body>
void for_voxels(const std::vector<int64_t>& sides, Body&& body) {
  for (int64_t z = 0; z < sides[0]; ++z)
    for (int64_t y = 0; y < sides[1]; ++y)
      for (int64_t x = 0; x < sides[2]; ++x) body(z, y, x);
}

/// sum over the 27 neighbours of weight(dz) weight(dy) weight(dx) value
template <class At>
double convolved(At&& at, const std::array<std::array<int, 3>, 3>& weights) {
  double sum = 0;
  for (int64_t z = -1; z <= 1; ++z)
    for (int64_t y = -1; y <= 1; ++y)
      for (int64_t x = -1; x <= 1; ++x)
        sum += weights[0][static_cast<size_t>(z + 1)] * weights[1][static_cast<size_t>(y + 1)] *
               weights[2][static_cast<size_t>(x + 1)] * at(z, y, x);
  return sum;
}

constexpr std::array<int, 3> kSmooth{1, 2, 1}, kDifference{-1, 0, 1};

std::vector<uint8_t> plain_edges(const std::vector<uint8_t>& bytes,
                                 const std::vector<int64_t>& sides, int64_t low, int64_t high) {
  const Volume raw{sides, {bytes.begin(), bytes.end()}};
  Volume smooth{sides, {}}, length{sides, {}};
  for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
    const double sum = convolved(
        [&](int64_t a, int64_t b, int64_t c) { return raw.reflected(z + a, y + b, x + c); },
        {kSmooth, kSmooth, kSmooth});
    smooth.values.push_back(std::floor(sum / 64 + 0.5));
  });
  std::vector<std::array<double, 3>> gradients;
  for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
    const auto at = [&](int64_t a, int64_t b, int64_t c) { return smooth.at(z + a, y + b, x + c); };
    const std::array<double, 3> g{convolved(at, {kDifference, kSmooth, kSmooth}) / 4,
                                  convolved(at, {kSmooth, kDifference, kSmooth}) / 4,
                                  convolved(at, {kSmooth, kSmooth, kDifference}) / 4};
    gradients.push_back(g);
    length.values.push_back(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]);
  });
  std::vector<uint8_t> states;
  size_t i = 0;
  for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
    const std::array<double, 3> g = gradients[i];
    const double own = length.values[i++];
    const double most = std::max({std::abs(g[0]), std::abs(g[1]), std::abs(g[2])});
    std::array<int64_t, 3> d{};
    for (size_t axis = 0; axis < 3; ++axis)
      if (std::abs(g[axis]) > most * std::tan(M_PI / 8)) d[axis] = g[axis] > 0 ? 1 : -1;
    if (d < std::array<int64_t, 3>{}) d = {-d[0], -d[1], -d[2]};
    const auto other = [&](int64_t sign) {
      const int64_t a = z + sign * d[0], b = y + sign * d[1], c = x + sign * d[2];
      return length.inside(a, b, c) ? length.at(a, b, c) : 0.0;
    };
    const bool ridge = own > other(-1) && own >= other(1);
    const auto above = [&](int64_t t) { return own > static_cast<double>(t * t); };
    states.push_back(ridge && above(high) ? 2 : ridge && above(low) ? 1 : 0);
  });
  for (bool changed = true; changed;) {
    changed = false;
    i = 0;
    for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
      const size_t here = i++;
      if (states[here] != 1) return;
      for (int64_t n = 0; n < 27; ++n) {
        const int64_t a = z + n / 9 - 1, b = y + n / 3 % 3 - 1, c = x + n % 3 - 1;
        if (length.inside(a, b, c) &&
            states[static_cast<size_t>((a * sides[1] + b) * sides[2] + c)] == 2)
          states[here] = 2, changed = true;
      }
    });
  }
  for (uint8_t& state : states) state = state == 2;
  return states;
}

/// A ball of radius r around the middle, of the given brightness.
std::vector<uint8_t> ball(const std::vector<int64_t>& sides, double radius, uint8_t value) {
  std::vector<uint8_t> bytes;
  for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
    const double a = static_cast<double>(2 * z + 1 - sides[0]) / 2,
                 b = static_cast<double>(2 * y + 1 - sides[1]) / 2,
                 c = static_cast<double>(2 * x + 1 - sides[2]) / 2;
    bytes.push_back(a * a + b * b + c * c < radius * radius ? value : 0);
  });
  return bytes;
}

TEST(Edges, OfVolumesAreThoseOfStraightLoops) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{9, 12, 11}, std::vector<int64_t>{16, 16, 16},
        std::vector<int64_t>{3, 17, 20}}) {
    std::vector<uint8_t> bytes = ball(sides, 5.5, 170);
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] =
          static_cast<uint8_t>(bytes[i] + core::draw(kKey, 0, static_cast<uint32_t>(i)) % 60);
    const auto edges = edges_of(bytes, 1, sides, {3, 60, 110});
    const auto count = std::count(edges.begin(), edges.end(), 1);
    EXPECT_GT(count, 0);
    EXPECT_LT(count, std::ssize(edges));
    EXPECT_EQ(edges, plain_edges(bytes, sides, 60, 110));
  }
}

TEST(Edges, OfLargeVolumesDoNotDependOnTheirSlabs) {
  const std::vector<int64_t> sides{26, 180, 190};  // slabs of eight planes
  std::vector<uint8_t> bytes = ball(sides, 60, 140);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(bytes[i] + core::draw(kKey, 1, static_cast<uint32_t>(i)) % 90);
  EXPECT_EQ(edges_of(bytes, 1, sides, {3, 60, 110}), plain_edges(bytes, sides, 60, 110));
}

TEST(Edges, OfALargeImageRepeatWhereTheImageDoes) {
  constexpr int64_t kTile = 64, kSide = 4096;
  const std::vector<uint8_t> tile = pattern(1, kTile, kTile);
  std::vector<uint8_t> bytes(static_cast<size_t>(kSide * kSide));
  for (int64_t y = 0; y < kSide; ++y)
    for (int64_t x = 0; x < kSide; x += kTile)
      std::copy_n(tile.begin() + y % kTile * kTile, kTile, bytes.begin() + y * kSide + x);
  // Without weak pixels no edge comes from further away than the steps before reach.
  const auto start = std::chrono::steady_clock::now();
  const auto edges = edges_of(bytes, 1, {kSide, kSide}, {5, 90, 90});
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("edges of %lld^2 pixels: %.0f ms\n", static_cast<long long>(kSide),
              1e3 * taken.count());
  const auto row = [&](int64_t y) { return edges.begin() + y * kSide + kTile; };
  int64_t found = 0, wrong = 0;
  for (int64_t y = kTile; y < kSide - kTile; ++y) {
    const auto first = row(kTile + y % kTile);
    wrong += !std::equal(first, first + kSide - 3 * kTile, row(y));
    wrong += !std::equal(row(y), row(y) + kSide - 3 * kTile, row(y) + kTile);
    found += std::count(row(y), row(y) + kTile, 1);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(found, kSide);
}

TEST(Edges, OfABallLieOnAllSidesOfIt) {
  const std::vector<int64_t> sides{32, 32, 32};
  const auto edges = edges_of(ball(sides, 10, 200), 1, sides, {1, 75, 125});
  std::array<int64_t, 8> octants{};
  double worst = 0;
  size_t i = 0;
  for_voxels(sides, [&](int64_t z, int64_t y, int64_t x) {
    if (!edges[i++]) return;
    ++octants[static_cast<size_t>(z / 16 * 4 + y / 16 * 2 + x / 16)];
    const auto square = [](int64_t v) { return (double(v) - 15.5) * (double(v) - 15.5); };
    worst = std::max(worst, std::abs(std::sqrt(square(z) + square(y) + square(x)) - 10));
  });
  const auto [least, most] = std::minmax_element(octants.begin(), octants.end());
  std::printf("edge voxels an octant %lld to %lld, farthest from the surface %.2f\n",
              static_cast<long long>(*least), static_cast<long long>(*most), worst);
  EXPECT_GT(*least, 100);  // an eighth of the surface has 157 voxels' area
  // Which of two equal neighbours stays depends on the order alone, so octants differ by those.
  EXPECT_LT(static_cast<double>(*most - *least), 0.25 * static_cast<double>(*most));
  EXPECT_LT(worst, 1.5);
}

TEST(Edges, OfAStepStayWithTheEarlierOfItsTwoPixels) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{12, 12}, std::vector<int64_t>{12, 12, 12}})
    for (size_t axis = 0; axis < sides.size(); ++axis) {
      const int64_t pixels = sides.size() == 2 ? 144 : 1728;
      int64_t stride = 1;
      for (size_t later = axis + 1; later < sides.size(); ++later) stride *= 12;
      const auto place = [&](int64_t i) { return i / stride % 12; };
      std::vector<uint8_t> bytes, expected;
      for (int64_t i = 0; i < pixels; ++i) {
        bytes.push_back(place(i) >= 4 && place(i) < 8 ? 200 : 0);
        expected.push_back(place(i) == 3 || place(i) == 7);
      }
      EXPECT_EQ(edges_of(bytes, 1, sides, {1, 75, 125}), expected) << "axis " << axis;
    }
}

TEST(Edges, OfConstantImagesAreNone) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{1, 1}, {1, 7}, {16, 16}, {1, 1, 1}, {5, 6, 7}, {1, 9, 2}}) {
    int64_t pixels = 1;
    for (const int64_t side : sides) pixels *= side;
    const std::vector<uint8_t> bytes(static_cast<size_t>(2 * pixels), 200);
    for (const int64_t blur : {1, 3, 5}) {
      const auto edges = edges_of(bytes, 2, sides, {blur, 0, 0});
      EXPECT_EQ(std::count(edges.begin(), edges.end(), 1), 0);
    }
  }
}

TEST(Edges, ComeFromTheStrongestChannel) {
  std::vector<uint8_t> flat(pattern(1, 40, 40).size(), 90), image = pattern(1, 40, 40);
  std::vector<uint8_t> both = flat;
  both.insert(both.end(), image.begin(), image.end());
  EXPECT_EQ(edges_of(both, 2, {40, 40}, {}), edges_of(image, 1, {40, 40}, {}));
}

TEST(Edges, BytesComeBackFromNormalisedImages) {
  std::vector<float> image;
  std::vector<uint8_t> expected;
  const std::vector<float> mean{0.485f, 0.456f}, std{0.229f, 0.224f};
  for (size_t c = 0; c < 2; ++c)
    for (int v = 0; v < 256; ++v) {
      image.push_back((static_cast<float>(v) / 255.0f - mean[c]) / std[c]);
      expected.push_back(static_cast<uint8_t>(v));
    }
  std::vector<uint8_t> bytes(image.size());
  std::vector<float> range;
  for (size_t c = 0; c < 2; ++c)
    range.insert(range.end(), {(0 - mean[c]) / std[c], (1 - mean[c]) / std[c]});
  scale_to_bytes(image, 2, range, bytes);
  EXPECT_EQ(bytes, expected);
}

TEST(Edges, StretchesTheImagesOwnRange) {
  const std::vector<float> image{-1000, 0, 3000, 1000};
  std::vector<uint8_t> bytes(4);
  scale_to_bytes(image, 1, {}, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{0, 64, 255, 128}));
  scale_to_bytes(std::vector<float>(4, 7.0f), 1, {}, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>(4, 0)));
  scale_to_bytes(image, 1, std::vector<float>{5, 5}, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{0, 64, 255, 128}));
}

TEST(Edges, WidenTheUnitRangeToHoldTheImage) {
  const std::vector<float> unit{0, 1};
  std::vector<uint8_t> bytes(4);
  scale_to_bytes(std::vector<float>{0.2f, 0.4f, 0.8f, 0.6f}, 1, unit, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{51, 102, 204, 153}));
  scale_to_bytes(std::vector<float>{-1000, 0, 3000, 1000}, 1, unit, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{0, 64, 255, 128}));
  scale_to_bytes(std::vector<float>{0, 0.5f, 2, 1}, 1, unit, bytes);
  EXPECT_EQ(bytes, (std::vector<uint8_t>{0, 64, 255, 128}));
}

TEST(Edges, RefusePixelsThatAreNoNumbers) {
  std::vector<uint8_t> bytes(4);
  for (const float bad : {NAN, INFINITY, -INFINITY})
    for (const std::vector<float>& range : {std::vector<float>{}, {0, 1}}) {
      const std::vector<float> image{0, 1, bad, 0};
      EXPECT_THROW(scale_to_bytes(image, 1, range, bytes), core::Error);
    }
}

TEST(Edges, OptionsOfTrainingAreDrawnBySample) {
  std::set<int64_t> blurs, lows;
  for (int64_t index = 0; index < 1000; ++index) {
    const EdgeOptions options = drawn_edges(7, 2, index);
    EXPECT_EQ(options, drawn_edges(7, 2, index));
    EXPECT_EQ(options.high, options.low + 50);
    blurs.insert(options.blur);
    lows.insert(options.low);
  }
  EXPECT_EQ(blurs, (std::set<int64_t>{1, 3, 5}));
  EXPECT_EQ(lows.size(), 50u);
  EXPECT_EQ(*lows.begin(), 50);
  EXPECT_FALSE(drawn_edges(7, 2, 1) == drawn_edges(7, 3, 1) &&
               drawn_edges(7, 2, 2) == drawn_edges(7, 3, 2));
}

TEST(Edges, RefuseOtherOptions) {
  const std::vector<uint8_t> bytes(16, 0);
  for (const EdgeOptions& options :
       {EdgeOptions{2, 1, 2}, EdgeOptions{7, 1, 2}, EdgeOptions{3, 5, 4}, EdgeOptions{3, -1, 4}})
    EXPECT_THROW(edges_of(bytes, 1, {4, 4}, options), core::Error);
  EXPECT_THROW(edges_of(bytes, 1, {4, 5}, {}), core::Error);
  EXPECT_THROW(edges_of(bytes, 1, {16}, {}), core::Error);
}

}  // namespace
}  // namespace vitrail::patching
