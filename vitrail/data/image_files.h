#pragma once
/// JPEG and PNG files as pixels and as masks.

#include <string>

#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

inline constexpr const char* kImageKinds = ".jpg, .jpeg or .png";

Pixels read_image_pixels(const std::string& path);

/// From the header alone.
Shape image_file_shape(const std::string& path);

/// Grey values of a mask file. A colour file must be grey in every pixel.
/// throws   DataError naming the file; 16-bit files, whose values would not survive the 8-bit
///          decoder, are refused.
Mask read_image_mask(const std::string& path);

}  // namespace vitrail::data
