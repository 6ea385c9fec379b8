#include "vitrail/patching/edges.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/patching/filters.h"
#include "vitrail/patching/pixel_rows.h"

namespace vitrail::patching {
namespace {

/// tan(22.5 degrees) in 15-bit fixed point, as OpenCV rounds it.
constexpr int64_t kTangentBits = 15, kTangent = 13573;
/// Of Stream::augment; augmentation steps count up from 0.
constexpr uint16_t kEdgeLayer = 0xFFF0;

/// An array with a border of one pixel around it.
struct Frame {
  explicit Frame(std::span<const int64_t> sides_) : sides(sides_.begin(), sides_.end()) {
    for (int64_t& side : sides) side += 2;
    strides.assign(sides.size(), 1);
    for (size_t axis = sides.size() - 1; axis > 0; --axis)
      strides[axis - 1] = strides[axis] * sides[axis];
  }
  int64_t size() const { return pixels_of(sides); }
  std::vector<int64_t> sides, strides;
};

/// body(place in the frame, place in the array, length) for each row along the last axis.
template <class Body>
void for_rows(const Frame& frame, Body&& body) {
  const size_t axes = frame.sides.size();
  const int64_t width = frame.sides[axes - 1] - 2, height = frame.sides[axes - 2] - 2;
  const int64_t depth = axes == 3 ? frame.sides[0] - 2 : 1;
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = 0; y < height; ++y) {
      const int64_t inner = (y + 1) * frame.strides[axes - 2] + 1;
      body(axes == 3 ? (z + 1) * frame.strides[0] + inner : inner, (z * height + y) * width, width);
    }
}

/// OpenCV's test of an image's pixel; norm points at it inside a frame of the given row stride.
bool is_ridge(const int32_t* norm, int64_t stride, int64_t gy, int64_t gx) {
  const int64_t x = std::abs(gx), y = std::abs(gy) << kTangentBits;
  const int64_t tangent = x * kTangent, steep = tangent + (x << (kTangentBits + 1));
  if (y < tangent) return norm[0] > norm[-1] && norm[0] >= norm[1];
  if (y > steep) return norm[0] > norm[-stride] && norm[0] >= norm[stride];
  const int64_t step = (gx < 0) != (gy < 0) ? -1 : 1;
  return norm[0] > norm[-stride - step] && norm[0] > norm[stride + step];
}

/// The direction has each component that is above tan(22.5 degrees) of the largest.
bool is_ridge(const int32_t* norm, const std::vector<int64_t>& strides,
              const std::array<int64_t, 3>& g) {
  const int64_t largest = std::max({std::abs(g[0]), std::abs(g[1]), std::abs(g[2])}) * kTangent;
  int64_t offset = 0;
  for (size_t axis = 0; axis < 3; ++axis)
    if (std::abs(g[axis]) << kTangentBits > largest)
      offset += g[axis] < 0 ? -strides[axis] : strides[axis];
  offset = std::abs(offset);  // of two equal neighbours the later one gives way
  return norm[0] > norm[-offset] && norm[0] >= norm[offset];
}

enum State : uint8_t { nothing, weak, edge };

/// Marks weak pixels that touch an edge as edges, and so on.
void follow(const Frame& frame, std::vector<uint8_t>& states, std::vector<int64_t> strong) {
  std::vector<int64_t> around{0};
  for (const int64_t stride : frame.strides) {
    const std::vector<int64_t> inner = around;
    for (const int64_t offset : inner)
      around.insert(around.end(), {offset - stride, offset + stride});
  }
  while (!strong.empty()) {
    const int64_t place = strong.back();
    strong.pop_back();
    for (const int64_t offset : around) {
      uint8_t& state = states[static_cast<size_t>(place + offset)];
      if (state != weak) continue;
      state = edge;
      strong.push_back(place + offset);
    }
  }
}

/// A threshold in the units of the norm: of a volume the square of 4 times itself.
int32_t norm_threshold(int64_t threshold, size_t axes) {
  constexpr int64_t kLargest = 8192;  // above any gradient of bytes
  const int64_t limited = std::min(threshold, kLargest);
  return static_cast<int32_t>(axes == 2 ? limited : 16 * limited * limited);
}

/// The first three steps, slab by slab along the first axis: what a slab needs stays in the cache.
class Thinner {
 public:
  Thinner(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
          const EdgeOptions& options)
      : states(static_cast<size_t>(Frame(sides).size()), nothing),
        bytes_(bytes),
        channels_(channels),
        sides_(sides.begin(), sides.end()),
        plane_(pixels_of(sides.subspan(1))),
        blur_(options.blur),
        low_(norm_threshold(options.low, sides.size())),
        high_(norm_threshold(options.high, sides.size())),
        frame_(sides) {
    const int64_t height = std::max(kSlabPixels / plane_, kLeastPlanes);
    for (int64_t first = 0; first < sides[0]; first += height)
      thin_slab(first, std::min(first + height, sides[0]));
  }

  std::vector<uint8_t> states;  // in a frame of nothing
  std::vector<int64_t> strong;  // places of edges in it

 private:
  static constexpr int64_t kSlabPixels = int64_t{1} << 18, kLeastPlanes = 8;

  void thin_slab(int64_t first, int64_t last) {
    // One plane for the neighbours of a ridge, one for the gradient, and the radius of the blur.
    // Filters treat the ends of what they get as the image's; that reaches no further than this.
    const int64_t margin = 2 + blur_ / 2;
    const int64_t from = std::max<int64_t>(first - margin, 0);
    const int64_t to = std::min(last + margin, sides_[0]);
    std::vector<int64_t> sides = sides_;
    sides[0] = to - from;
    const int64_t pixels = pixels_of(sides);
    for (std::vector<int32_t>* buffer : {&values_, &scratch_, &other_norm_, &norm_})
      buffer->resize(static_cast<size_t>(pixels));
    for (int64_t c = 0; c < channels_; ++c) {
      widen(bytes_.data() + c * sides_[0] * plane_ + from * plane_, values_.data(), pixels);
      blur(sides);
      add_gradient(sides, c == 0);
    }
    mark_ridges(sides, first - from, last - from, from);
  }

  void blur(const std::vector<int64_t>& sides) {
    if (blur_ == 1) return;
    const Filter smooth = blur_ == 3 ? Filter::smooth3 : Filter::smooth5;
    filter_axes(values_, sides, std::vector<Filter>(sides.size(), smooth), Border::reflect,
                scratch_);
    round_shift(values_, static_cast<int>(sides.size()) * (blur_ == 3 ? 2 : 4));
  }

  /// Norms: |gx| + |gy| of an image, the square of the length of a volume.
  void add_gradient(const std::vector<int64_t>& sides, bool is_first) {
    std::vector<std::vector<int32_t>>& parts = is_first ? parts_ : other_parts_;
    std::vector<int32_t>& norm = is_first ? norm_ : other_norm_;
    parts.resize(sides.size());
    for (size_t axis = 0; axis < sides.size(); ++axis) {
      std::vector<Filter> filters(sides.size(), Filter::smooth3);
      filters[axis] = Filter::difference;
      parts[axis].assign(values_.begin(), values_.end());
      filter_axes(parts[axis], sides, filters, Border::replicate, scratch_);
    }
    if (sides.size() == 2)
      sum_magnitudes(parts[0], parts[1], norm);
    else
      sum_squares(parts[0], parts[1], parts[2], norm);
    if (is_first) return;
    for (size_t axis = 0; axis < sides.size(); ++axis)
      take_where_larger(other_norm_, norm_, other_parts_[axis], parts_[axis]);
    take_where_larger(other_norm_, norm_, other_norm_, norm_);
  }

  /// Planes first .. last - 1 of the slab, which begins at the image's plane `from`.
  void mark_ridges(const std::vector<int64_t>& sides, int64_t first, int64_t last, int64_t from) {
    const Frame slab(sides);
    framed_.assign(static_cast<size_t>(slab.size()), 0);
    for_rows(slab, [&](int64_t place, int64_t i, int64_t n) {
      std::copy_n(norm_.data() + i, n, framed_.data() + place);
    });
    for_rows(slab, [&](int64_t place, int64_t begin, int64_t n) {
      if (begin < first * plane_ || begin >= last * plane_) return;
      const int32_t *norms = framed_.data() + place, low = low_;
      for (int64_t j = 0; j < n; ++j) {
        const int32_t norm = norms[j];
        if (norm <= low || !is_ridge_at(slab, place + j, static_cast<size_t>(begin + j))) continue;
        const int64_t target = place + j + from * frame_.strides[0];
        states[static_cast<size_t>(target)] = norm > high_ ? edge : weak;
        if (norm > high_) strong.push_back(target);
      }
    });
  }

  bool is_ridge_at(const Frame& slab, int64_t place, size_t i) const {
    const int32_t* norm = framed_.data() + place;
    if (sides_.size() == 2) return is_ridge(norm, slab.strides[0], parts_[0][i], parts_[1][i]);
    return is_ridge(norm, slab.strides, {parts_[0][i], parts_[1][i], parts_[2][i]});
  }

  std::span<const uint8_t> bytes_;
  int64_t channels_;
  std::vector<int64_t> sides_;
  int64_t plane_, blur_;
  int32_t low_, high_;
  Frame frame_;
  std::vector<int32_t> values_, scratch_;
  std::vector<std::vector<int32_t>> parts_,
      other_parts_;  // of the strongest channel so far, of one
  std::vector<int32_t> norm_, other_norm_, framed_;
};

void check(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
           const EdgeOptions& options, std::span<uint8_t> edges) {
  VT_CHECK(sides.size() == 2 || sides.size() == 3,
           "[patching] an image must have 2 or 3 sides but got {}", sides.size());
  const int64_t pixels = pixels_of(sides);
  VT_CHECK(
      channels >= 1 && pixels >= 1 && std::ssize(bytes) == channels * pixels &&
          std::ssize(edges) == pixels,
      "[patching] an image of {} channels and {} pixels needs as many bytes but got {}, and {} "
      "for the edges",
      channels, pixels, bytes.size(), edges.size());
  VT_CHECK(options.blur == 1 || options.blur == 3 || options.blur == 5,
           "[patching] the blur must be 1, 3 or 5 but got {}", options.blur);
  VT_CHECK(options.low >= 0 && options.low <= options.high,
           "[patching] edge thresholds must be 0 <= low <= high but got {} and {}", options.low,
           options.high);
}

}  // namespace

EdgeOptions drawn_edges(uint64_t seed, int64_t epoch, int64_t index) {
  const core::DrawKey key{seed, core::Stream::augment, static_cast<uint32_t>(epoch), kEdgeLayer};
  const auto below = [&](uint32_t element, float count) {
    return static_cast<int64_t>(core::uniform(key, static_cast<uint64_t>(index), element) * count);
  };
  const int64_t low = 50 + below(1, 50.0f);
  return {1 + 2 * below(0, 3.0f), low, low + 50};
}

void to_bytes(std::span<const float> image, int64_t channels, const ByteRange& range,
              std::span<uint8_t> bytes) {
  VT_CHECK(channels >= 1 && image.size() == bytes.size() && std::ssize(image) % channels == 0,
           "[patching] {} values of {} channels cannot become {} bytes", image.size(), channels,
           bytes.size());
  const auto value_of = [&](const std::vector<float>& values, int64_t c, float otherwise) {
    VT_CHECK(values.empty() || values.size() == 1 || std::ssize(values) == channels,
             "[patching] mean and std must have 1 or {} values but got {}", channels,
             values.size());
    return values.empty() ? otherwise : values[values.size() == 1 ? 0 : static_cast<size_t>(c)];
  };
  const int64_t pixels = std::ssize(image) / channels;
  std::vector<Scale> scales;
  for (int64_t c = 0; c < channels; ++c)
    scales.push_back({value_of(range.std, c, 1.0f), value_of(range.mean, c, 0.0f)});
  const auto rows = [&](int64_t c) {
    return image.subspan(static_cast<size_t>(c * pixels), static_cast<size_t>(pixels));
  };
  float low = range.stretch ? INFINITY : 0.0f, high = range.stretch ? -INFINITY : 1.0f;
  for (int64_t c = 0; c < channels; ++c) {
    const auto [least, largest] = limits(rows(c), scales[static_cast<size_t>(c)]);
    low = std::min(low, least), high = std::max(high, largest);
  }
  for (int64_t c = 0; c < channels; ++c) {
    const Scale scale = scales[static_cast<size_t>(c)].onto_bytes(low, high);
    const bool finite = round_to_bytes(rows(c), scale, bytes.data() + c * pixels);
    VT_CHECK(finite, "[patching] every pixel must be a finite number but channel {} has others", c);
  }
}

void edge_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
              const EdgeOptions& options, std::span<uint8_t> edges) {
  check(bytes, channels, sides, options, edges);
  Thinner thin(bytes, channels, sides, options);
  const Frame frame(sides);
  follow(frame, thin.states, std::move(thin.strong));
  for_rows(frame, [&](int64_t place, int64_t first, int64_t n) {
    mark_equal(thin.states.data() + place, edge, edges.data() + first, n);
  });
}

}  // namespace vitrail::patching
