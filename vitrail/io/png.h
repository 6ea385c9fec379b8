#pragma once
/// PNG of 16 bits a value; all others go through io/image.h.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vitrail/io/image.h"

namespace vitrail::io {

/// Rows from the top, `channels` values a pixel: 1 grey or 3 red, green, blue.
struct DeepImage {
  int width = 0, height = 0, channels = 0;
  std::vector<uint16_t> pixels;  // [height, width, channels]
};

/// By its header alone.
bool is_deep_png(std::span<const std::byte> file);

/// Values as stored; alpha is dropped (not blended), as io/image.h does. Refused: PNG of fewer bits.
/// Errors   DataError naming the file and giving libpng's own words.
DeepImage decode_deep_png(std::span<const std::byte> file, const std::string& name,
                          const ImageLimits& limits = {});

}  // namespace vitrail::io
