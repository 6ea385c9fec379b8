#include <algorithm>
#include <array>

#include "vitrail/patching/resample_leaves.h"
#include "vitrail/patching/resample_votes.h"

namespace vitrail::patching {
namespace {

/// Each place of a leaf of patch size is a pixel: body(place, its class).
template <class Body>
void for_pixels(const LabelBlock& block, const std::array<int64_t, 3>& patch, Body&& body) {
  int64_t place = 0;
  for (int64_t z = 0; z < patch[0]; ++z)
    for (int64_t y = 0; y < patch[1]; ++y) {
      const int64_t* row = block.data + z * block.plane + y * block.row;
      for (int64_t x = 0; x < patch[2]; ++x) body(place++, row[x]);
    }
}

/// row(i) of each place along each axis of a leaf.
template <class Row>
struct Rows {
  std::array<std::vector<Row>, 3> axis;

  template <class MakeRow>
  Rows(const std::array<int64_t, 3>& patch, const std::array<int64_t, 3>& leaf, MakeRow&& row) {
    for (size_t a = 0; a < 3; ++a)
      for (int32_t i = 0; i < patch[a]; ++i)
        axis[a].push_back(row(static_cast<int32_t>(leaf[a]), static_cast<int32_t>(patch[a]), i));
  }

  /// body(place, rows of its axes) for each place of the patch.
  template <class Body>
  void for_each(Body&& body) const {
    int64_t place = 0;
    for (const Row& z : axis[0])
      for (const Row& y : axis[1])
        for (const Row& x : axis[2]) body(place++, z, y, x);
  }
};

std::array<int64_t, 3> patch_of(const LeafBoxes& boxes, int64_t patch_size) {
  return {boxes.axes() == 3 ? patch_size : 1, patch_size, patch_size};
}

LabelBlock block_of(const LeafBoxes& boxes, int64_t leaf, const int64_t* labels) {
  const std::array<int64_t, 3>&low = boxes.leaf(leaf).low, &sides = boxes.sides();
  const int64_t plane = sides[1] * sides[2], row = sides[2];
  return {labels + low[0] * plane + low[1] * row + low[2], plane, row};
}

}  // namespace

void label_leaf(LabelRule rule, int64_t patch_size, const LeafBoxes& boxes, int64_t leaf,
                const int64_t* labels, int64_t* out) {
  const std::array<int64_t, 3> patch = patch_of(boxes, patch_size);
  const int64_t patch_pixels = patch[0] * patch[1] * patch[2];
  out += leaf * patch_pixels;
  if (boxes.is_padding(leaf)) {
    std::fill_n(out, patch_pixels, -1);
    return;
  }
  const LabelBlock block = block_of(boxes, leaf, labels);
  if (boxes.leaf(leaf).size == patch) {
    for_pixels(block, patch,
               [&](int64_t place, int64_t label) { out[place] = label < 0 ? -1 : label; });
    return;
  }
  const Rows<AxisRange> rows(
      patch, boxes.leaf(leaf).size,
      [&](int32_t pixels, int32_t places, int32_t i) { return voters(rule, pixels, places, i); });
  rows.for_each([&](int64_t place, const AxisRange& z, const AxisRange& y, const AxisRange& x) {
    out[place] = winner(block, z, y, x);
  });
}

void share_leaf(int64_t classes, int64_t patch_size, const LeafBoxes& boxes, int64_t leaf,
                const int64_t* labels, float* out) {
  const std::array<int64_t, 3> patch = patch_of(boxes, patch_size);
  const int64_t patch_pixels = patch[0] * patch[1] * patch[2];
  const int64_t stride = boxes.count() * patch_pixels;  // from class to class
  out += leaf * patch_pixels;
  for (int64_t c = 0; c < classes; ++c) std::fill_n(out + c * stride, patch_pixels, 0.0f);
  if (boxes.is_padding(leaf)) return;
  const auto is_class = [&](int64_t label) { return label >= 0 && label < classes; };
  const LabelBlock block = block_of(boxes, leaf, labels);
  if (boxes.leaf(leaf).size == patch) {
    for_pixels(block, patch, [&](int64_t place, int64_t label) {
      if (is_class(label)) out[label * stride + place] = 1;
    });
    return;
  }
  const Rows<AxisTaps> rows(patch, boxes.leaf(leaf).size,
                            [](int32_t pixels, int32_t places, int32_t i) {
                              return taps_of(make_axis(Resample::area, pixels, places), i);
                            });
  std::vector<double> shares(static_cast<size_t>(classes));
  rows.for_each([&](int64_t place, const AxisTaps& z, const AxisTaps& y, const AxisTaps& x) {
    const auto range = [](const AxisTaps& taps) {
      return AxisRange{taps.first, taps.first + taps.count};
    };
    const int64_t first_label = block.at(z.first, y.first, x.first);
    if (is_uniform(block, range(z), range(y), range(x))) {
      if (is_class(first_label)) out[first_label * stride + place] = 1;
      return;
    }
    // The sums of share_of for all classes at once, in its order.
    std::fill(shares.begin(), shares.end(), 0.0);
    for (int32_t k = 0; k < z.count; ++k)
      for (int32_t j = 0; j < y.count; ++j) {
        const double weight = z.at(k) * y.at(j);
        for (int32_t i = 0; i < x.count; ++i) {
          const int64_t label = block.at(z.first + k, y.first + j, x.first + i);
          if (label >= 0 && label < classes) shares[static_cast<size_t>(label)] += weight * x.at(i);
        }
      }
    for (int64_t c = 0; c < classes; ++c)
      out[c * stride + place] = static_cast<float>(shares[static_cast<size_t>(c)]);
  });
}

}  // namespace vitrail::patching
