#pragma once
/// JPEG, PNG and TIFF files of one page as pixels and as masks; which it is, the bytes tell.

#include <cstddef>
#include <span>
#include <string>

#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

inline constexpr const char* kImageKinds = ".jpg, .jpeg or .png";

/// Bytes of full scale 255; 16 bits become floats of full scale 65535, other numbers of TIFF floats
/// of full scale 1.
/// throws   DataError naming the file.
Pixels read_image_pixels(const std::string& path);
/// The same for a file in memory; `name` is for messages.
Pixels decode_image_pixels(std::span<const std::byte> file, const std::string& name);

/// From the header alone. throws   DataError naming the file.
Shape image_file_shape(const std::string& path);

/// Grey values of a mask file, of 8 or 16 bits (TIFF: any integers). A JPEG or PNG in colour must be grey in every pixel.
/// throws   DataError naming the file.
Mask read_image_mask(const std::string& path);
Mask decode_image_mask(std::span<const std::byte> file, const std::string& name);

}  // namespace vitrail::data
