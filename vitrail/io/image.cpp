#include "vitrail/io/image.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "vitrail/core/error.h"
#include "vitrail/io/image_codecs.h"
#include "vitrail/io/image_file.h"

namespace vitrail::io {
namespace {

enum class Codec { jpeg, png };

bool starts_with(std::span<const std::byte> file, std::span<const unsigned char> signature) {
  return file.size() >= signature.size() &&
         std::equal(signature.begin(), signature.end(), file.begin(),
                    [](unsigned char a, std::byte b) { return std::byte{a} == b; });
}

Codec detect(std::span<const std::byte> file, const std::string& name) {
  static constexpr std::array<unsigned char, 3> kJpeg = {0xFF, 0xD8, 0xFF};
  static constexpr std::array<unsigned char, 8> kPng = {0x89, 'P',  'N',  'G',
                                                        '\r', '\n', 0x1A, '\n'};
  if (starts_with(file, kJpeg)) return Codec::jpeg;
  if (starts_with(file, kPng)) return Codec::png;
  core::fail<core::DataError>("[data] {}: must be a JPEG or PNG image but {}", name,
                              file.empty() ? "is empty" : "starts with other bytes");
}

/// Read, not mapped: image folders have many small files, and maps of one process wait for each
/// other. Valid until the thread's next file.
std::span<const std::byte> file_bytes(const std::string& path, const ImageLimits& limits) {
  static thread_local FileBuffer file;
  return file.read(path, limits.max_file_bytes);
}

}  // namespace

void check_image_box(const ImageSize& size, const ImageBox& box, const std::string& name) {
  VT_REQUIRE(DataError,
             box.x >= 0 && box.y >= 0 && box.width > 0 && box.height > 0 &&
                 box.width <= size.width - box.x && box.height <= size.height - box.y,
             "[data] {}: the part {} x {} from {}, {} on must lie inside the image of {} x {}",
             name, box.width, box.height, box.x, box.y, size.width, size.height);
}

void check_image_size(const ImageSize& size, const std::string& name, const ImageLimits& limits) {
  const int64_t pixels = int64_t{size.width} * size.height;
  VT_REQUIRE(DataError, size.width > 0 && size.height > 0 && pixels <= limits.max_pixels,
             "[data] {}: must have 1 to {} pixels but got {} x {}", name, limits.max_pixels,
             size.width, size.height);
}

Image blank_image(const ImageSize& size) {
  Image image{size.width, size.height, size.channels, {}};
  image.pixels.resize(static_cast<size_t>(size.width) * static_cast<size_t>(size.height) *
                      static_cast<size_t>(size.channels));
  return image;
}

void check_encodable(const Image& image) {
  VT_CHECK(image.width > 0 && image.height > 0 && (image.channels == 1 || image.channels == 3) &&
               image.pixels.size() == static_cast<size_t>(image.width) *
                                          static_cast<size_t>(image.height) *
                                          static_cast<size_t>(image.channels),
           "[image] pixels must be height * width * (1 or 3) values but got {} for {} x {} x {}",
           image.pixels.size(), image.height, image.width, image.channels);
}

bool has_image_extension(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

Image decode_image(std::span<const std::byte> file, const std::string& name,
                   const ImageLimits& limits) {
  return detect(file, name) == Codec::jpeg ? decode_jpeg(file, name, limits)
                                           : decode_png(file, name, limits);
}

Image read_image(const std::string& path, const ImageLimits& limits) {
  return decode_image(file_bytes(path, limits), path, limits);
}

Image decode_image_box(std::span<const std::byte> file, const std::string& name,
                       const ImageBox& box, const ImageLimits& limits) {
  if (detect(file, name) == Codec::jpeg) return decode_jpeg_box(file, name, box, limits);
  const Image whole = decode_png(file, name, limits);
  check_image_box({whole.width, whole.height, whole.channels}, box, name);
  Image part = blank_image({box.width, box.height, whole.channels});
  const auto pixel = static_cast<size_t>(whole.channels);
  const size_t row = static_cast<size_t>(box.width) * pixel;
  for (int y = 0; y < box.height; ++y) {
    const size_t from = static_cast<size_t>(box.y + y) * static_cast<size_t>(whole.width) +
                        static_cast<size_t>(box.x);
    std::copy_n(whole.pixels.data() + from * pixel, row,
                part.pixels.data() + static_cast<size_t>(y) * row);
  }
  return part;
}

Image read_image_box(const std::string& path, const ImageBox& box, const ImageLimits& limits) {
  return decode_image_box(file_bytes(path, limits), path, box, limits);
}

ImageSize read_image_size(const std::string& path, const ImageLimits& limits) {
  return image_size(file_bytes(path, limits), path, limits);
}

ImageSize image_size(std::span<const std::byte> file, const std::string& name,
                     const ImageLimits& limits) {
  const ImageSize size =
      detect(file, name) == Codec::jpeg ? jpeg_size(file, name) : png_size(file, name);
  check_image_size(size, name, limits);
  return size;
}

}  // namespace vitrail::io
