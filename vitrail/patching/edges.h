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
/// Memory   2 bytes a pixel besides image and map, and what hysteresis is still to follow (8 bytes for
///          each weak pixel in the worst case).
/// Threads  pure functions.

#include <cstdint>
#include <functional>
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

/// Floats [C, sides...] -> bytes of equal shape, rounded to nearest. range [C, 2]: of each channel the
/// value that is black and the one that is white, moved apart to hold all values of all channels. Empty,
/// or with a channel where both are equal: from the image's least value to its largest.
/// throws   Error when a pixel is NaN or infinite, or for spans of another size.
void scale_to_bytes(std::span<const float> image, int64_t channels, std::span<const float> range,
                    std::span<uint8_t> bytes);

/// Calls its second argument with 0 ... count - 1, in any order or at once; none = one after another.
using Runner = std::function<void(int64_t count, const std::function<void(int64_t)>& part)>;

/// bytes [C, sides...] of 2 or 3 sides -> 1 on edges, 0 elsewhere, [sides...]. `run` gets strips of rows.
/// throws   Error for another blur, low > high or negative, or spans of another size.
void edge_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
              const EdgeOptions& options, std::span<uint8_t> edges, const Runner& run = {});

}  // namespace vitrail::patching
