#pragma once
/// A part of a JPEG or PNG file.

#include <string>

#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

/// The same pixels as in that part of read_image_pixels(), with less decoding for a JPEG (see
/// io::decode_image_box).
/// throws   DataError naming the file.
Pixels read_image_part(const std::string& path, const Box& box);

}  // namespace vitrail::data
