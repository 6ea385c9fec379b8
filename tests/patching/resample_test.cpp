// Leaves to patches and back, by hand and by what must hold for any image.

#include "vitrail/patching/resample.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/patching/resample_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/resample_gather.h"

namespace vitrail::patching {
namespace {

using test::Case;
using test::kKey;
using test::kMethods;
using test::random_case;
using test::random_values;
using test::serialised;
using testing::ElementsAre;

TEST(Resample, KeepsChannelsApartAndPixelsInOrder) {
  // 2 channels of 2 x 4, two leaves of 2 x 2
  const std::vector<float> image{1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18};
  EXPECT_THAT(serialised(image, 2, {2, 4}, {0, 0, 2, 2, 0, 2, 2, 4}, 2),
              ElementsAre(1, 2, 5, 6, 3, 4, 7, 8, 11, 12, 15, 16, 13, 14, 17, 18));
}

TEST(Resample, AveragesAreasWhereItShrinks) {
  const std::vector<float> image{0, 4, 8, 12, 16, 20, 24, 28, 1, 1, 1, 1, 3, 3, 3, 3};
  EXPECT_THAT(serialised(image, 1, {4, 4}, {0, 0, 4, 4}, 2), ElementsAre(10, 18, 2, 2));
  // 3 pixels to 2: each takes one and a half
  EXPECT_THAT(serialised({3, 6, 12}, 1, {1, 3}, {0, 0, 1, 3}, 2), ElementsAre(4, 10, 4, 10));
}

/// Leaves of patch[a] * runs[a] pixels, two beside each other.
void expect_means(const std::vector<int64_t>& runs, int64_t patch, double& worst) {
  const size_t k = runs.size();
  std::vector<int64_t> sides(k), leaf(k);
  std::vector<float> boxes(4 * k, 0.0f);
  for (size_t a = 0; a < k; ++a) {
    sides[a] = leaf[a] = runs[a] * patch;
    boxes[k + a] = boxes[3 * k + a] = static_cast<float>(leaf[a]);
  }
  sides[k - 1] *= 2;
  boxes[3 * k - 1] = static_cast<float>(leaf[k - 1]);
  boxes[4 * k - 1] = static_cast<float>(sides[k - 1]);
  const Case made{sides, 2, patch, boxes};
  const auto image = random_values(static_cast<size_t>(made.image_values()), 8);
  std::vector<double> means(static_cast<size_t>(made.token_values()), 0.0);
  for (int64_t i = 0; i < made.image_values(); ++i) {
    int64_t rest = i % made.pixels(), place = 0, scale = 1, pixels = 1, second = 0;
    for (size_t a = k; a-- > 0; scale *= patch) {
      const int64_t at = rest % sides[a];
      rest /= sides[a];
      if (a == k - 1) second = at / leaf[a];
      place += at % leaf[a] / runs[a] * scale;
      pixels *= runs[a];
    }
    place += (i / made.pixels() * 2 + second) * made.patch_pixels();
    means[static_cast<size_t>(place)] +=
        static_cast<double>(image[static_cast<size_t>(i)]) / static_cast<double>(pixels);
  }
  const std::vector<float> tokens = serialised(made, image);
  for (size_t i = 0; i < tokens.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(tokens[i]) - means[i]) /
                                std::max(std::abs(means[i]), 1e-3));
  for (const float value : {0.1f, 1e-42f, 3e38f, -7.7777777f}) {
    const std::vector<float> flat(image.size(), value);
    EXPECT_EQ(serialised(made, flat), std::vector<float>(tokens.size(), value));
  }
}

TEST(Resample, AveragesWholeRunsOfPixels) {
  double worst = 0;
  for (const int64_t patch : {1, 3, 16})
    for (const int64_t y : {1, 2, 3, 4, 7, 8, 12})
      for (const int64_t x : {1, 2, 3, 4, 5, 6, 16}) expect_means({y, x}, patch, worst);
  for (const int64_t z : {1, 2, 5})
    for (const int64_t y : {1, 3, 6})
      for (const int64_t x : {1, 2, 10}) expect_means({z, y, x}, 3, worst);
  std::printf("worst relative difference %.1e (allowed 6.1e-8)\n", worst);
  EXPECT_LE(worst, 6.1e-8);  // doubles rounded once: half an ulp is at most 2^-24 of the value
}

TEST(Resample, InterpolatesBetweenCentresWhereItGrows) {
  // 2 pixels to 4: centres at 0, 1/4, 3/4, 1 between them
  EXPECT_THAT(serialised({0, 8}, 1, {1, 2}, {0, 0, 1, 2}, 4),
              ElementsAre(0, 2, 6, 8, 0, 2, 6, 8, 0, 2, 6, 8, 0, 2, 6, 8));
}

TEST(Resample, TakesVolumesAxisByAxis) {
  std::vector<float> volume;
  for (int z = 0; z < 4; ++z)
    for (int y = 0; y < 2; ++y)
      for (int x = 0; x < 4; ++x) volume.push_back(static_cast<float>(100 * z + 10 * y + x));
  // z and x shrink by 2, y stays
  EXPECT_THAT(serialised(volume, 1, {4, 2, 4}, {0, 0, 0, 4, 2, 4}, 2),
              ElementsAre(50.5, 52.5, 60.5, 62.5, 250.5, 252.5, 260.5, 262.5));
}

TEST(Resample, PaddingIsZeroAndPastesNothing) {
  const std::vector<float> image{1, 2, 3, 4};
  const std::vector<float> boxes{0, 0, 2, 2, 0, 0, 0, 0};
  const std::vector<float> tokens = serialised(image, 1, {2, 2}, boxes, 2);
  EXPECT_THAT(tokens, ElementsAre(1, 2, 3, 4, 0, 0, 0, 0));
  std::vector<float> back(4, 9.0f);
  std::vector<float> noisy = tokens;
  noisy[5] = 77;
  paste(noisy, 1, std::vector<int64_t>{2, 2}, boxes, 2, back);
  EXPECT_EQ(back, image);
}

std::vector<float> there_and_back(const Case& made, const std::vector<float>& image,
                                  Resample method = Resample::area) {
  std::vector<float> back(image.size(), -1.0f);
  paste(serialised(made, image, method), made.channels, made.sides, made.boxes, made.patch, back,
        method);
  return back;
}

TEST(Resample, BringsLeavesOfPatchSizeBackExactly) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{16, 24}, std::vector<int64_t>{8, 16, 12}}) {
    Case made{sides, 3, 4, {}};
    uint32_t draws = 0;
    for (int64_t z = 0; z < sides[0]; z += 4)
      for (int64_t y = 0; y < sides[1]; y += 4)
        for (int64_t x = 0; x < (made.axes() == 3 ? sides[2] : 1); x += 4)
          test::grow(made, 0, draws, made.axes() == 3 ? std::vector{z, y, x} : std::vector{z, y}, 4,
                     4);
    const auto image = random_values(static_cast<size_t>(made.image_values()), 1);
    for (const Resample method : kMethods) EXPECT_EQ(there_and_back(made, image, method), image);
  }
}

/// A value of its own for every leaf and channel.
std::vector<float> constant_on_leaves(const Case& made) {
  const auto k = static_cast<size_t>(made.axes());
  std::vector<float> image(static_cast<size_t>(made.image_values()));
  for (size_t i = 0; i < image.size(); ++i) {
    size_t place = i % static_cast<size_t>(made.pixels());
    const size_t channel = i / static_cast<size_t>(made.pixels());
    std::vector<float> at(k);
    for (size_t axis = k; axis-- > 0;) {
      at[axis] = static_cast<float>(place % static_cast<size_t>(made.sides[axis]));
      place /= static_cast<size_t>(made.sides[axis]);
    }
    for (size_t leaf = 0; leaf * 2 * k < made.boxes.size(); ++leaf) {
      bool inside = true;
      for (size_t axis = 0; axis < k; ++axis)
        inside = inside && at[axis] >= made.boxes[leaf * 2 * k + axis] &&
                 at[axis] < made.boxes[leaf * 2 * k + k + axis];
      if (inside) image[i] = core::normal(kKey, 99, static_cast<uint32_t>(leaf * 3 + channel));
    }
  }
  return image;
}

TEST(Resample, BringsImagesThatAreConstantOnTheirLeavesBackExactly) {
  for (uint64_t sample = 0; sample < 60; ++sample) {
    const Case made = random_case(sample, 2 + sample % 2, 1 + static_cast<int64_t>(sample % 5), 4);
    const std::vector<float> image = constant_on_leaves(made);
    for (const Resample method : kMethods)
      EXPECT_EQ(there_and_back(made, image, method), image) << "sample " << sample;
  }
}

TEST(Resample, StaysWithinTheLeafsOwnRange) {
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const Case made = random_case(sample, 2, 3, 5);
    const auto image = random_values(static_cast<size_t>(made.image_values()), sample);
    const auto [low, high] = std::minmax_element(image.begin(), image.end());
    for (const float value : there_and_back(made, image)) {
      EXPECT_GE(value, *low);
      EXPECT_LE(value, *high);
    }
  }
}

TEST(AxisWeights, EqualThePlainFormulas) {
  double worst = 0;
  for (const Resample method : kMethods)
    for (int32_t from = 1; from <= 33; ++from)
      for (int32_t to = 1; to <= 33; ++to) {
        const Axis axis = make_axis(method, from, to);
        const auto plain = test::plain_matrix(method, from, to);
        for (int32_t i = 0; i < to; ++i) {
          const AxisTaps taps = taps_of(axis, i);
          ASSERT_TRUE(taps.first >= 0 && taps.count >= 1 && taps.first + taps.count <= from);
          for (int32_t j = 0; j < from; ++j)
            worst =
                std::max(worst, std::abs(weight_of(taps, j) -
                                         plain[static_cast<size_t>(i)][static_cast<size_t>(j)]));
          for (int32_t j = taps.first; j < taps.first + taps.count; ++j) {
            const AxisRange results = results_with(axis, j);
            EXPECT_TRUE(results.low >= 0 && results.low <= i && i < results.high &&
                        results.high <= to)
                << from << " to " << to << ": value " << j << ", result " << i;
          }
        }
      }
  std::printf("worst difference %.1e (allowed 1e-14)\n", worst);
  EXPECT_LE(worst, 1e-14);  // centres of up to 33, rounded at 4e-15 in the plain form
}

TEST(AxisWeights, HoldWhereSidesAreLargest) {
  const Axis axis = make_axis(Resample::cubic, 1 << 14, (1 << 14) - 1);
  const AxisTaps last = taps_of(axis, axis.to - 1);
  EXPECT_EQ(last.first + last.count, axis.from);
  const AxisRange results = results_with(axis, axis.from - 1);
  EXPECT_TRUE(results.low < axis.to && results.high == axis.to);
  EXPECT_EQ(taps_of(make_axis(Resample::area, 1 << 24, 3), 2).count, (1 << 24) / 3 + 1);
}

/// All maps of all leaves by plain sums over whole blocks, in double.
double worst_against_plain(const Case& made, Resample method, bool is_paste) {
  const auto in =
      random_values(static_cast<size_t>(is_paste ? made.token_values() : made.image_values()), 7);
  std::vector<float> out(static_cast<size_t>(is_paste ? made.image_values() : made.token_values()),
                         5.0f);
  if (is_paste)
    paste(in, made.channels, made.sides, made.boxes, made.patch, out, method);
  else
    serialise(in, made.channels, made.sides, made.boxes, made.patch, out, method);
  const auto k = static_cast<size_t>(made.axes());
  const std::vector<float>&image = is_paste ? out : in, &tokens = is_paste ? in : out;
  double worst = 0;
  for (int64_t c = 0; c < made.channels; ++c)
    for (int64_t leaf = 0; leaf < made.leaves(); ++leaf) {
      const float* box = made.boxes.data() + static_cast<size_t>(leaf) * 2 * k;
      int64_t low[3] = {0, 0, 0}, size[3] = {1, 1, 1}, patch[3] = {1, 1, 1}, sides[3] = {1, 1, 1};
      for (size_t a = 0; a < k; ++a) {
        low[3 - k + a] = static_cast<int64_t>(box[a]);
        size[3 - k + a] = static_cast<int64_t>(box[k + a] - box[a]);
        patch[3 - k + a] = made.patch;
        sides[3 - k + a] = made.sides[a];
      }
      if (size[1] == 0) continue;
      const int64_t* from = is_paste ? patch : size;
      const int64_t* to = is_paste ? size : patch;
      std::vector<std::vector<double>> weights[3];
      for (int a = 0; a < 3; ++a) weights[a] = test::plain_matrix(method, from[a], to[a]);
      const auto place = [&](bool in_image, int64_t z, int64_t y, int64_t x) {
        return static_cast<size_t>(
            in_image ? ((c * sides[0] + low[0] + z) * sides[1] + low[1] + y) * sides[2] + low[2] + x
                     : (((c * made.leaves() + leaf) * patch[0] + z) * patch[1] + y) * patch[2] + x);
      };
      for (int64_t z = 0; z < to[0]; ++z)
        for (int64_t y = 0; y < to[1]; ++y)
          for (int64_t x = 0; x < to[2]; ++x) {
            double sum = 0;
            for (int64_t kz = 0; kz < from[0]; ++kz)
              for (int64_t ky = 0; ky < from[1]; ++ky)
                for (int64_t kx = 0; kx < from[2]; ++kx)
                  sum += weights[0][static_cast<size_t>(z)][static_cast<size_t>(kz)] *
                         weights[1][static_cast<size_t>(y)][static_cast<size_t>(ky)] *
                         weights[2][static_cast<size_t>(x)][static_cast<size_t>(kx)] *
                         (is_paste ? tokens : image)[place(!is_paste, kz, ky, kx)];
            const double found = (is_paste ? image : tokens)[place(is_paste, z, y, x)];
            worst = std::max(worst, std::abs(found - sum));
          }
    }
  return worst;
}

TEST(Resample, EqualsPlainSums) {
  double worst = 0;
  for (uint64_t sample = 0; sample < 12; ++sample)
    for (const Resample method : kMethods)
      for (const bool is_paste : {false, true})
        worst = std::max(worst, worst_against_plain(random_case(sample, 2 + sample % 2, 3, 4),
                                                    method, is_paste));
  std::printf("worst difference %.1e (allowed 1e-6)\n", worst);
  EXPECT_LE(worst, 1e-6);  // values up to 8, rounded to floats once: 2.4e-7
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}
double norm(const std::vector<float>& a) { return std::sqrt(dot(a, a)); }

TEST(Resample, AdjointsAreExact) {
  double worst = 0;
  for (uint64_t sample = 0; sample < 40; ++sample)
    for (const Resample method : kMethods) {
      const Case made =
          random_case(sample, 2 + sample % 2, 1 + static_cast<int64_t>(sample % 7), 5);
      const auto& [sides, channels, patch, boxes] = made;
      const auto image = random_values(static_cast<size_t>(made.image_values()), 1);
      const auto tokens = random_values(static_cast<size_t>(made.token_values()), 2);
      std::vector<float> to_tokens(tokens.size(), 3.0f), to_image(image.size(), 3.0f);
      serialise(image, channels, sides, boxes, patch, to_tokens, method);
      serialise_adjoint(tokens, channels, sides, boxes, patch, to_image, method);
      const double scale = norm(image) * norm(tokens);
      worst = std::max(worst, std::abs(dot(to_tokens, tokens) - dot(image, to_image)) / scale);
      paste(tokens, channels, sides, boxes, patch, to_image, method);
      paste_adjoint(image, channels, sides, boxes, patch, to_tokens, method);
      worst = std::max(worst, std::abs(dot(to_image, image) - dot(tokens, to_tokens)) / scale);
    }
  std::printf("worst relative difference %.1e (allowed 1e-6)\n", worst);
  EXPECT_LE(worst, 1e-6);  // floats round at 6e-8
}

/// What the GPU's threads compute, run here.
std::vector<float> gathered_map(const Case& made, const LeafMap& map,
                                const std::vector<float>& in) {
  LeafBatch leaves;
  leaves.boxes = made.boxes.data();
  leaves.batch = 1;
  leaves.leaves = made.leaves();
  leaves.axes = static_cast<int32_t>(made.axes());
  leaves.patch_size = static_cast<int32_t>(made.patch);
  for (int64_t a = 0; a < made.axes(); ++a)
    leaves.sides[3 - made.axes() + a] = static_cast<int32_t>(made.sides[static_cast<size_t>(a)]);
  const int64_t row = leaves.sides[2], plane = leaves.sides[1] * row;
  const int64_t patch_row = leaves.patch(2), patch_plane = leaves.patch(1) * patch_row;
  const bool to_patch = map.to_patch();
  std::vector<float> out(static_cast<size_t>(to_patch ? made.token_values() : made.image_values()),
                         0.0f);
  for (int64_t c = 0; c < made.channels; ++c)
    for (int64_t leaf = 0; leaf < made.leaves(); ++leaf) {
      const LeafBox box = leaf_box(leaves, leaf);
      EXPECT_FALSE(box.is_bad);
      if (box.is_padding) continue;
      const int64_t token = (c * made.leaves() + leaf) * made.patch_pixels();
      const int64_t pixel = c * made.pixels() + box.low[0] * plane + box.low[1] * row + box.low[2];
      const ValueBlock from = to_patch ? ValueBlock{in.data() + pixel, plane, row}
                                       : ValueBlock{in.data() + token, patch_plane, patch_row};
      float* to = out.data() + (to_patch ? token : pixel);
      Axis axes[3];
      for (int a = 0; a < 3; ++a) axes[a] = map.axis(box.size[a], leaves.patch(a));
      for (int32_t z = 0; z < (to_patch ? leaves.patch(0) : box.size[0]); ++z)
        for (int32_t y = 0; y < (to_patch ? leaves.patch(1) : box.size[1]); ++y)
          for (int32_t x = 0; x < (to_patch ? leaves.patch(2) : box.size[2]); ++x)
            to[z * (to_patch ? patch_plane : plane) + y * (to_patch ? patch_row : row) + x] =
                map.is_adjoint
                    ? adjoint_gathered(from, axes, z, y, x,
                                       [&](int a, int32_t i) { return taps_of(axes[a], i); })
                    : gathered(from, taps_of(axes[0], z), taps_of(axes[1], y), taps_of(axes[2], x));
    }
  return out;
}

TEST(Resample, TheGpusSumsAreTheSame) {
  double worst = 0;
  for (uint64_t sample = 0; sample < 12; ++sample)
    for (const Resample method : kMethods) {
      const Case made =
          random_case(sample, 2 + sample % 2, 1 + static_cast<int64_t>(sample % 5), 4);
      const auto& [sides, channels, patch, boxes] = made;
      const auto image = random_values(static_cast<size_t>(made.image_values()), 3);
      const auto tokens = random_values(static_cast<size_t>(made.token_values()), 4);
      const auto compare = [&](const LeafMap& map, auto&& function) {
        const std::vector<float>& in = map.to_patch() ? image : tokens;
        std::vector<float> out(map.to_patch() ? tokens.size() : image.size());
        function(in, channels, sides, boxes, patch, out, method);
        const std::vector<float> other = gathered_map(made, map, in);
        for (size_t i = 0; i < out.size(); ++i)
          worst = std::max(worst, static_cast<double>(std::abs(out[i] - other[i]) /
                                                      std::max(1.0f, std::abs(out[i]))));
      };
      compare({method, false, false}, [](auto&&... a) { serialise(a...); });
      compare({method, false, true}, [](auto&&... a) { serialise_adjoint(a...); });
      compare({method, true, false}, [](auto&&... a) { paste(a...); });
      compare({method, true, true}, [](auto&&... a) { paste_adjoint(a...); });
    }
  std::printf("worst difference %.1e (allowed 2e-7)\n", worst);
  EXPECT_LE(worst, 2e-7);  // both add doubles and round once, in other orders: an ulp is 1.2e-7
}

TEST(Resample, AChannelIsSeenInItsOwnTokensOnly) {
  Case made = random_case(8, 2, 3, 4);
  made.channels = 3;
  auto image = random_values(static_cast<size_t>(made.image_values()), 5);
  for (const Resample method : kMethods) {
    const auto before = serialised(made, image, method);
    auto changed = image;
    for (int64_t p = 0; p < made.pixels(); ++p)
      changed[static_cast<size_t>(made.pixels() + p)] += 2.0f;
    const auto after = serialised(made, changed, method);
    const size_t third = before.size() / 3;
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + third, after.begin()));
    EXPECT_TRUE(std::equal(before.begin() + 2 * third, before.end(), after.begin() + 2 * third));
    EXPECT_FALSE(
        std::equal(before.begin() + third, before.begin() + 2 * third, after.begin() + third));
  }
}

TEST(Resample, RefusesBoxesThatAreNone) {
  const std::vector<float> image(16, 1.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& box : {std::vector<float>{0, 0, 4, 5},
                                        {-1, 0, 4, 4},
                                        {2, 0, 1, 4},
                                        {0.5, 0, 4, 4},
                                        {nan, 0, 4, 4},
                                        {0, 0, 4, 1e30f}})
    EXPECT_THROW(serialised(image, 1, {4, 4}, box, 2), core::Error);
  EXPECT_THROW(serialised(image, 1, {4, 4}, {0, 0, 4, 4}, kLargestPatch + 1), core::Error);
  std::vector<float> tokens(3);
  EXPECT_THROW(
      serialise(image, 1, std::vector<int64_t>{4, 4}, std::vector<float>{0, 0, 4, 4}, 2, tokens),
      core::Error);
}

}  // namespace
}  // namespace vitrail::patching
