#include "vitrail/data/image_files.h"

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

/// PNG keeps its bit depth behind signature, chunk header, width and height.
bool is_png_of_16_bits(const std::string& path) {
  constexpr size_t kBitDepth = 24;
  const core::MappedFile file(path);
  return file.bytes().size() > kBitDepth && file.bytes()[0] == std::byte{0x89} &&
         file.bytes()[kBitDepth] == std::byte{16};
}

}  // namespace

Pixels read_image_pixels(const std::string& path) {
  io::Image image = io::read_image(path);
  Pixels pixels;
  pixels.sides = {image.height, image.width};
  pixels.channels = image.channels;
  pixels.values = std::move(image.pixels);
  return pixels;
}

Shape image_file_shape(const std::string& path) {
  const core::MappedFile file(path);
  const io::ImageSize size = io::image_size(file.bytes(), path);
  return {{size.height, size.width}, size.channels, ""};
}

Mask read_image_mask(const std::string& path) {
  VT_REQUIRE(DataError, !is_png_of_16_bits(path),
             "[data] {}: a mask must have 8 bits per pixel but has 16; store classes as 8 bits",
             path);
  const Pixels pixels = read_image_pixels(path);
  Mask mask{pixels.sides, {}};
  mask.classes.reserve(static_cast<size_t>(count(mask.sides)));
  const auto channels = static_cast<size_t>(pixels.channels);
  for (size_t i = 0; i < pixels.values.size(); i += channels) {
    const uint8_t* value = pixels.values.data() + i;
    VT_REQUIRE(DataError, channels == 1 || (value[0] == value[1] && value[1] == value[2]),
               "[data] {}: a mask must be grey but pixel {} has the colour {}, {}, {}", path,
               i / channels, value[0], value[1], value[2]);
    mask.classes.push_back(value[0]);
  }
  return mask;
}

}  // namespace vitrail::data
