#pragma once
/// Where an image has detail: the edge map that adaptive patching divides by.
///
/// Paper    Canny 1986, "A computational approach to edge detection".
/// Images   OpenCV's GaussianBlur and Canny (aperture 3, |gx| + |gy|) on 8-bit images, pixel for pixel.
/// Volumes  the same steps in three dimensions: 3-D blur, 3-D Sobel operator, true gradient magnitude
///          sqrt(gx^2 + gy^2 + gz^2), non-maximum suppression along one of 13 directions, hysteresis
///          over 26 neighbours. The magnitude is divided by 4, the gain of the third axis' smoothing,
///          so that the thresholds mean what they mean in an image.
/// Channels a pixel takes the gradient of the channel where it is strongest (the first of equals).
/// Numbers  integers throughout: equal on every machine. A constant image has no edges.
/// Threads  pure functions.

#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::patching {

/// The defaults, used in evaluation, are the middle of what training draws from.
struct EdgeOptions {
  int64_t blur = 3;              // edge of the binomial kernel: 1 (none), 3 or 5
  int64_t low = 75, high = 125;  // an edge begins above high and goes on while above low
  bool operator==(const EdgeOptions&) const = default;
};

/// What a training sample uses: blur 1, 3 or 5 with equal chance, low uniform in [50, 100), high =
/// low + 50; drawn by Philox from the run's seed, the epoch and the global sample index.
EdgeOptions drawn_edges(uint64_t seed, int64_t epoch, int64_t index);

/// How the floats of an image become the bytes that edges are looked for in.
struct ByteRange {
  /// Per channel, or one for all; undone first. Empty = 0 and 1.
  std::vector<float> mean, std;
  /// What becomes 0 ... 255. false: 0 ... 1, widened to hold the image's least and largest value. true:
  /// from its least to its largest value. Both over all channels.
  bool stretch = false;
};

/// image [C, sides...] -> bytes of equal shape, rounded to nearest.
/// throws   Error when a pixel is NaN or infinite, or mean and std have neither 1 nor C values.
void to_bytes(std::span<const float> image, int64_t channels, const ByteRange& range,
              std::span<uint8_t> bytes);

/// bytes [C, sides...] of 2 or 3 sides -> 1 on edges, 0 elsewhere, [sides...].
/// throws   Error for another blur, low > high or negative, or spans of another size.
void edge_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
              const EdgeOptions& options, std::span<uint8_t> edges);

}  // namespace vitrail::patching
