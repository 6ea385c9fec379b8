#pragma once
/// JPEG and PNG: 8-bit pixels in, 8-bit pixels out.
///
/// Errors   DataError naming the file and giving the codec's own words.
/// Threads  any; nothing is shared.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vitrail::io {

/// Rows from the top, `channels` values a pixel: 1 grey or 3 red, green, blue.
struct Image {
  int width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;  // [height, width, channels]
};

struct ImageSize {
  int width = 0, height = 0, channels = 0;  // of the image as decode_image gives it
};

/// Checked before anything is allocated.
struct ImageLimits {
  int64_t max_pixels = int64_t{1} << 28;
  int64_t max_file_bytes = int64_t{1} << 30;
};

/// .jpg, .jpeg or .png in capitals or not: which files of a folder are taken for images.
bool has_image_extension(const std::string& path);

/// JPEG or PNG by signature. Grey stays grey, everything else becomes RGB: palettes are looked up,
/// alpha is dropped (not blended), 16-bit values are scaled to 8 bits. EXIF orientation and colour
/// profiles are ignored, as Pillow does. Refused: CMYK JPEG, files that end early or whose data is
/// damaged.
Image decode_image(std::span<const std::byte> file, const std::string& name,
                   const ImageLimits& limits = {});

/// decode_image of a file; whether it is JPEG or PNG does not depend on how it is called.
Image read_image(const std::string& path, const ImageLimits& limits = {});

/// A part of an image, in pixels from the upper left corner.
struct ImageBox {
  int x = 0, y = 0, width = 0, height = 0;
};

/// The part of what decode_image gives, pixel by pixel the same. A JPEG is decoded no further than
/// needed: rows above and columns beside the part are only skipped, and what follows it in the file is
/// not looked at, so that damage there is not met.
/// throws   DataError unless the part lies inside the image and holds a pixel.
Image decode_image_box(std::span<const std::byte> file, const std::string& name,
                       const ImageBox& box, const ImageLimits& limits = {});
/// decode_image_box of a file.
Image read_image_box(const std::string& path, const ImageBox& box, const ImageLimits& limits = {});

/// From the header alone; the pixels may still turn out broken.
ImageSize image_size(std::span<const std::byte> file, const std::string& name,
                     const ImageLimits& limits = {});
/// image_size of a file.
ImageSize read_image_size(const std::string& path, const ImageLimits& limits = {});

/// The file's bytes.
/// throws   Error unless channels is 1 or 3 and pixels has height * width * channels values;
/// DataError in the codec.
std::string encode_png(const Image& image);
/// quality  1 (small) to 100 (good).
std::string encode_jpeg(const Image& image, int quality = 90);

}  // namespace vitrail::io
