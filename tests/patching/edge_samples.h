#pragma once
// Batches of bytes for tests of edges and importance, on CPU and GPU.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "vitrail/core/philox.h"

namespace vitrail::patching::test {

inline int64_t product(const std::vector<int64_t>& sides) {
  int64_t pixels = 1;
  for (const int64_t side : sides) pixels *= side;
  return pixels;
}

inline std::vector<uint8_t> random_bytes(int64_t count, int64_t sample, int levels = 256) {
  const core::DrawKey key{11, core::Stream::test, 0, 3};
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(
        core::draw(key, static_cast<uint64_t>(sample), static_cast<uint32_t>(i)) %
        static_cast<uint32_t>(levels));
  return bytes;
}

/// Soft shapes with some noise: gradients of all strengths and directions.
inline std::vector<uint8_t> shapes(int64_t channels, const std::vector<int64_t>& sides,
                                   int64_t sample) {
  std::vector<uint8_t> bytes = random_bytes(channels * product(sides), sample, 24);
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto rest = static_cast<int64_t>(i);
    double wave = 0, frequency = 0.31 + 0.07 * static_cast<double>(sample);
    for (size_t axis = sides.size(); axis-- > 0;) {
      const auto at = static_cast<double>(rest % sides[axis]);
      wave += std::sin(frequency * at) + std::cos(0.05 * at);
      frequency *= 0.7;
      rest /= sides[axis];
    }
    wave += 0.4 * static_cast<double>(rest);  // the channel
    bytes[i] = static_cast<uint8_t>(
        std::clamp(110 + 45 * std::floor(wave) + static_cast<double>(bytes[i]), 0.0, 255.0));
  }
  return bytes;
}

/// Values of the spiral's line and of its outer end: of thresholds 30 and 125 the end alone is above
/// the upper one, and the rest is one chain above the lower.
constexpr double kFaint = 15, kBright = 100;

/// An Archimedean spiral that grows bright at its outer end; in a volume in every fourth plane.
inline std::vector<uint8_t> spiral(const std::vector<int64_t>& sides) {
  constexpr double kPitch = 8, kHalfWidth = 1.5, kTurn = 6.283185307179586;
  const int64_t height = sides[sides.size() - 2], width = sides.back();
  const double last = static_cast<double>(std::min(height, width)) / 2 / kPitch - 1;
  std::vector<uint8_t> bytes(static_cast<size_t>(product(sides)), 0);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    if (place / (width * height) % 4 != 0) continue;
    const double y = static_cast<double>(place / width % height) - static_cast<double>(height) / 2;
    const double x = static_cast<double>(place % width) - static_cast<double>(width) / 2;
    const double radius = std::sqrt(y * y + x * x), angle = std::atan2(y, x) / kTurn + 0.5;
    const double turns = std::floor(radius / kPitch - angle + 0.5) + angle;  // of the nearest arm
    if (std::abs(radius - kPitch * turns) < kHalfWidth && turns >= 1 && turns <= last)
      bytes[i] =
          static_cast<uint8_t>(std::clamp(kFaint + (turns - last + 0.3) * 300, kFaint, kBright));
  }
  return bytes;
}

}  // namespace vitrail::patching::test
