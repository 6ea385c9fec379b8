#include "vitrail/patching/resample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <vector>

#include "vitrail/core/error.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/leaf_boxes.h"
#include "vitrail/patching/pixel_rows.h"

namespace vitrail::patching {
namespace {

/// Result i of an axis is the sum over j of weights[i][j] * input[first[i] + j].
struct AxisTaps {
  bool is_copy = false;
  std::vector<int64_t> first;
  std::vector<std::vector<double>> weights;
};

AxisTaps make_taps(int64_t input, int64_t output) {
  AxisTaps taps;
  taps.is_copy = input == output;
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  for (int64_t i = 0; i < output; ++i) {
    std::vector<double> weights;
    if (input > output) {
      const double low = scale * static_cast<double>(i), high = scale * static_cast<double>(i + 1);
      const auto first = std::min(static_cast<int64_t>(low), input - 1);
      for (int64_t j = first; j < input && static_cast<double>(j) < high; ++j)
        weights.push_back(
            (std::min(high, static_cast<double>(j + 1)) - std::max(low, static_cast<double>(j))) /
            scale);
      taps.first.push_back(first);
    } else {
      const double centre = std::clamp(scale * (static_cast<double>(i) + 0.5) - 0.5, 0.0,
                                       static_cast<double>(input - 1));
      const auto first = static_cast<int64_t>(centre);
      const double share = centre - static_cast<double>(first);
      weights = share > 0 ? std::vector{1 - share, share} : std::vector{1.0};
      taps.first.push_back(first);
    }
    taps.weights.push_back(std::move(weights));
  }
  return taps;
}

/// A block of three axes inside a larger array; the last axis is contiguous.
template <class Value>
struct Block {
  Value* data;
  std::array<int64_t, 3> size;
  int64_t plane, row;  // strides

  Value* at(int64_t z, int64_t y) const { return data + z * plane + y * row; }
};

template <class Value>
Block<Value> dense(Value* data, const std::array<int64_t, 3>& size) {
  return {data, size, size[1] * size[2], size[2]};
}

/// Resamples blocks; keeps the taps of every pair of lengths it has met.
class Resampler {
 public:
  void operator()(const Block<const float>& in, const Block<float>& out) {
    if (in.size == out.size) return copy(in, out);
    if (in.size[0] == out.size[0]) return rows(in, out);
    planes_.resize(static_cast<size_t>(out.size[0] * in.size[1] * in.size[2]));
    const auto mixed = dense(planes_.data(), {out.size[0], in.size[1], in.size[2]});
    const AxisTaps& taps = taps_of(in.size[0], out.size[0]);
    for (int64_t z = 0; z < out.size[0]; ++z)
      for (int64_t y = 0; y < in.size[1]; ++y)
        mix(taps, z, in.size[2], mixed.at(z, y), [&](int64_t source) { return in.at(source, y); });
    rows(Block<const double>{mixed.data, mixed.size, mixed.plane, mixed.row}, out);
  }

 private:
  static void copy(const Block<const float>& in, const Block<float>& out) {
    for (int64_t z = 0; z < in.size[0]; ++z)
      for (int64_t y = 0; y < in.size[1]; ++y) std::copy_n(in.at(z, y), in.size[2], out.at(z, y));
  }

  const AxisTaps& taps_of(int64_t input, int64_t output) {
    const auto [place, is_new] = taps_.try_emplace({input, output});
    if (is_new) place->second = make_taps(input, output);
    return place->second;
  }

  /// Result i of an axis of rows.
  template <class RowAt>
  static void mix(const AxisTaps& taps, int64_t i, int64_t count, double* out, RowAt&& row_at) {
    const std::vector<double>& weights = taps.weights[static_cast<size_t>(i)];
    const int64_t first = taps.first[static_cast<size_t>(i)];
    set_weighted(row_at(first), weights[0], out, count);
    for (size_t j = 1; j < weights.size(); ++j)
      add_weighted(row_at(first + static_cast<int64_t>(j)), weights[j], out, count);
  }

  /// The second and third axis.
  template <class Value>
  void rows(const Block<const Value>& in, const Block<float>& out) {
    const AxisTaps &down = taps_of(in.size[1], out.size[1]),
                   &along = taps_of(in.size[2], out.size[2]);
    line_.resize(static_cast<size_t>(in.size[2]));
    for (int64_t z = 0; z < out.size[0]; ++z)
      for (int64_t y = 0; y < out.size[1]; ++y) {
        mix(down, y, in.size[2], line_.data(), [&](int64_t source) { return in.at(z, source); });
        finish(along, out.size[2], out.at(z, y));
      }
  }

  void finish(const AxisTaps& taps, int64_t count, float* out) const {
    if (taps.is_copy) {
      std::copy_n(line_.data(), count, out);
      return;
    }
    for (int64_t x = 0; x < count; ++x) {
      const std::vector<double>& weights = taps.weights[static_cast<size_t>(x)];
      const double* from = line_.data() + taps.first[static_cast<size_t>(x)];
      double sum = 0;
      for (size_t j = 0; j < weights.size(); ++j) sum += weights[j] * from[j];
      out[x] = static_cast<float>(sum);
    }
  }

  std::map<std::pair<int64_t, int64_t>, AxisTaps> taps_;
  std::vector<double> planes_, line_;
};

/// The leaf's pixels in one channel of an image.
template <class Value>
Block<Value> leaf_block(Value* channel, const LeafBoxes& boxes, int64_t leaf) {
  const auto& [low, size] = boxes.leaf(leaf);
  const std::array<int64_t, 3>& sides = boxes.sides();
  const int64_t plane = sides[1] * sides[2], row = sides[2];
  return {channel + low[0] * plane + low[1] * row + low[2], size, plane, row};
}

struct Sizes {
  std::array<int64_t, 3> patch;
  int64_t patch_pixels, pixels;
};

Sizes checked_sizes(size_t values, int64_t channels, const LeafBoxes& boxes, int64_t patch_size,
                    size_t leaf_values) {
  VT_CHECK(patch_size >= 1 && channels >= 1,
           "[patching] patch size and channels must be at least 1 but got {} and {}", patch_size,
           channels);
  Sizes sizes;
  sizes.patch = {boxes.axes() == 3 ? patch_size : 1, patch_size, patch_size};
  sizes.patch_pixels = pixels_of(sizes.patch);
  sizes.pixels = pixels_of(boxes.sides());
  VT_CHECK(static_cast<int64_t>(values) == channels * sizes.pixels,
           "[patching] an image of {} channels and {} pixels cannot have {} values", channels,
           sizes.pixels, values);
  VT_CHECK(static_cast<int64_t>(leaf_values) == channels * boxes.count() * sizes.patch_pixels,
           "[patching] {} leaves of {} channels and {} pixels cannot have {} values", boxes.count(),
           channels, sizes.patch_pixels, leaf_values);
  return sizes;
}

/// Pixels of `input` whose centres lie in pixel i of `output`, else the one nearest to its centre.
std::pair<int64_t, int64_t> centres_in(int64_t i, int64_t input, int64_t output) {
  // Pixel j is inside when i * input <= (j + 1/2) * output < (i + 1) * input; all times 2.
  const auto first_from = [&](int64_t bound) {  // least j >= 0 with (2 j + 1) * output >= 2 * bound
    const int64_t above = 2 * bound - output;
    return above <= 0 ? 0 : (above + 2 * output - 1) / (2 * output);
  };
  const int64_t first = first_from(i * input), last = first_from((i + 1) * input);
  if (first < last) return {first, last};
  const int64_t nearest = (2 * i + 1) * input / (2 * output);
  return {nearest, nearest + 1};
}

/// Most frequent class but -1, of equals the least; `votes` is sorted on the way.
int64_t majority(std::vector<int64_t>& votes) {
  if (std::all_of(votes.begin(), votes.end(), [&](int64_t vote) { return vote == votes[0]; }))
    return votes[0];
  std::sort(votes.begin(), votes.end());
  int64_t winner = -1, most = 0;
  for (auto run = votes.begin(); run != votes.end();) {
    const auto end = std::upper_bound(run, votes.end(), *run);
    if (*run >= 0 && end - run > most) winner = *run, most = end - run;
    run = end;
  }
  return winner;
}

int64_t mosaic_side(int64_t leaves, int64_t axes) {
  const auto side =
      std::llround(std::pow(static_cast<double>(leaves), 1.0 / static_cast<double>(axes)));
  VT_CHECK((axes == 2 || axes == 3) && (axes == 2 ? side * side : side * side * side) == leaves,
           "[patching] a mosaic of {} axes cannot hold {} leaves", axes, leaves);
  return side;
}

/// body(place among the leaves, place in the mosaic) for each pixel.
template <class Body>
void for_mosaic(size_t values, int64_t axes, int64_t patch_size, Body&& body) {
  const int64_t patch = axes == 3 ? patch_size : 1;
  const int64_t patch_pixels = patch * patch_size * patch_size;
  const int64_t leaves = static_cast<int64_t>(values) / patch_pixels;
  VT_CHECK(leaves * patch_pixels == static_cast<int64_t>(values),
           "[patching] {} values are no whole leaves of {} pixels", values, patch_pixels);
  const int64_t side = mosaic_side(leaves, axes), width = side * patch_size;
  const int64_t depth = axes == 3 ? width : 1, layers = axes == 3 ? side : 1;
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = 0; y < width; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t layer = z / patch % layers;
        const int64_t leaf = (layer * side + y / patch_size) * side + x / patch_size;
        const int64_t inside =
            (z % patch * patch_size + y % patch_size) * patch_size + x % patch_size;
        body(static_cast<size_t>(leaf * patch_pixels + inside),
             static_cast<size_t>((z * width + y) * width + x));
      }
}

}  // namespace

void serialise(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
               std::span<const float> boxes, int64_t patch_size, std::span<float> tokens) {
  const LeafBoxes leaves(boxes, sides);
  const Sizes sizes = checked_sizes(image.size(), channels, leaves, patch_size, tokens.size());
  Resampler resample;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t leaf = 0; leaf < leaves.count(); ++leaf) {
      float* token = tokens.data() + (c * leaves.count() + leaf) * sizes.patch_pixels;
      if (leaves.is_padding(leaf))
        std::fill_n(token, sizes.patch_pixels, 0.0f);
      else
        resample(leaf_block(image.data() + c * sizes.pixels, leaves, leaf),
                 dense(token, sizes.patch));
    }
}

void paste(std::span<const float> tokens, int64_t channels, std::span<const int64_t> sides,
           std::span<const float> boxes, int64_t patch_size, std::span<float> image) {
  const LeafBoxes leaves(boxes, sides);
  const Sizes sizes = checked_sizes(image.size(), channels, leaves, patch_size, tokens.size());
  std::fill(image.begin(), image.end(), 0.0f);
  Resampler resample;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t leaf = 0; leaf < leaves.count(); ++leaf) {
      const float* token = tokens.data() + (c * leaves.count() + leaf) * sizes.patch_pixels;
      if (!leaves.is_padding(leaf))
        resample(dense(token, sizes.patch),
                 leaf_block(image.data() + c * sizes.pixels, leaves, leaf));
    }
}

void serialise_labels(std::span<const int64_t> labels, std::span<const int64_t> sides,
                      std::span<const float> boxes, int64_t patch_size,
                      std::span<int64_t> leaf_labels) {
  const LeafBoxes leaves(boxes, sides);
  const Sizes sizes = checked_sizes(labels.size(), 1, leaves, patch_size, leaf_labels.size());
  std::vector<int64_t> votes;
  for (int64_t leaf = 0; leaf < leaves.count(); ++leaf) {
    int64_t* out = leaf_labels.data() + leaf * sizes.patch_pixels;
    if (leaves.is_padding(leaf)) {
      std::fill_n(out, sizes.patch_pixels, -1);
      continue;
    }
    const auto block = leaf_block(labels.data(), leaves, leaf);
    for (int64_t p = 0; p < sizes.patch_pixels; ++p) {
      const auto [z0, z1] =
          centres_in(p / sizes.patch[2] / sizes.patch[1], block.size[0], sizes.patch[0]);
      const auto [y0, y1] =
          centres_in(p / sizes.patch[2] % sizes.patch[1], block.size[1], sizes.patch[1]);
      const auto [x0, x1] = centres_in(p % sizes.patch[2], block.size[2], sizes.patch[2]);
      votes.clear();
      for (int64_t z = z0; z < z1; ++z)
        for (int64_t y = y0; y < y1; ++y)
          votes.insert(votes.end(), block.at(z, y) + x0, block.at(z, y) + x1);
      out[p] = majority(votes);
    }
  }
}

template <class T>
void to_mosaic(std::span<const T> leaves, int64_t axes, int64_t patch_size, std::span<T> mosaic) {
  VT_CHECK(leaves.size() == mosaic.size(), "[patching] {} values do not fill a mosaic of {}",
           leaves.size(), mosaic.size());
  for_mosaic(mosaic.size(), axes, patch_size,
             [&](size_t leaf, size_t place) { mosaic[place] = leaves[leaf]; });
}

template <class T>
void from_mosaic(std::span<const T> mosaic, int64_t axes, int64_t patch_size, std::span<T> leaves) {
  VT_CHECK(leaves.size() == mosaic.size(), "[patching] a mosaic of {} does not fill {} values",
           mosaic.size(), leaves.size());
  for_mosaic(mosaic.size(), axes, patch_size,
             [&](size_t leaf, size_t place) { leaves[leaf] = mosaic[place]; });
}

template void to_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
template void to_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);
template void from_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
template void from_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);

std::vector<int64_t> mosaic_sides(int64_t leaves, int64_t axes, int64_t patch_size) {
  return std::vector<int64_t>(static_cast<size_t>(axes), mosaic_side(leaves, axes) * patch_size);
}

}  // namespace vitrail::patching
