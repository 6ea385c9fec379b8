#pragma once
/// What edges.cpp and importance.cpp share: an image whose gradient is wanted, and its strips of rows.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/edges.h"

namespace vitrail::patching {

/// depth 1 for an image.
struct Sides {
  int64_t depth = 1, height = 1, width = 1;
  bool is_volume = false;
};

struct EdgeImage {
  const uint8_t* bytes = nullptr;
  int64_t channels = 1;
  Sides sides;
  int64_t blur = 1;
  int32_t low = 0, high = 0;  // in the units of the norm

  const uint8_t* channel(int64_t c) const {
    return bytes + c * sides.depth * sides.height * sides.width;
  }
};

/// throws   as edge_map; `values` is the map's size.
EdgeImage edge_image(std::span<const uint8_t> bytes, int64_t channels,
                     std::span<const int64_t> sides, const EdgeOptions& options, size_t values);

/// Rows first to last - 1 (of each plane).
struct Strip {
  int64_t first, last;
};

/// A volume is cut so that the planes of a strip stay in the cache, an image only where strips run at
/// once.
std::vector<Strip> strips_of(const Sides& sides, bool at_once);

void run_all(const Runner& run, int64_t count, const std::function<void(int64_t)>& part);

/// scale_to_bytes, but returns the first channel that holds NaN or infinity; -1 = none does.
int64_t round_image(std::span<const float> image, int64_t channels, std::span<const float> range,
                    std::span<uint8_t> bytes);

}  // namespace vitrail::patching
