#pragma once
/// The two codecs behind io/image.h.

#include <cstddef>
#include <span>
#include <string>

#include "vitrail/core/error.h"
#include "vitrail/io/image.h"

namespace vitrail::io {

Image decode_jpeg(std::span<const std::byte> file, const std::string& name,
                  const ImageLimits& limits);
Image decode_jpeg_box(std::span<const std::byte> file, const std::string& name, const ImageBox& box,
                      const ImageLimits& limits);
ImageSize jpeg_size(std::span<const std::byte> file, const std::string& name);
Image decode_png(std::span<const std::byte> file, const std::string& name,
                 const ImageLimits& limits);
ImageSize png_size(std::span<const std::byte> file, const std::string& name);

/// throws  DataError unless there are pixels and not more than allowed.
void check_image_size(const ImageSize& size, const std::string& name, const ImageLimits& limits);

/// throws  DataError unless the box lies inside the image and holds a pixel.
void check_image_box(const ImageSize& size, const ImageBox& box, const std::string& name);

/// With room for all pixels, which are zero.
Image blank_image(const ImageSize& size);

/// throws  Error unless the image may be encoded.
void check_encodable(const Image& image);

}  // namespace vitrail::io
