#include "vitrail/data/image_files.h"

#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/array_samples.h"
#include "vitrail/data/label_files.h"
#include "vitrail/io/image.h"
#include "vitrail/io/image_file.h"
#include "vitrail/io/png.h"
#include "vitrail/io/tiff.h"

namespace vitrail::data {
namespace {

/// The file in a buffer of this thread, until its next call. Read, not mapped: image folders have
/// many small files, and maps of one process wait for each other.
std::span<const std::byte> read_bytes(const std::string& path) {
  static thread_local io::FileBuffer file;
  return file.read(path, io::ImageLimits{}.max_file_bytes);
}

/// The file as an array; of a TIFF in memory, only as long as that is.
ArraySample tiff_sample(std::span<const std::byte> file, const std::string& name) {
  ArraySample sample{io::parse_tiff(file, nullptr, name), {}, 0, name};
  sample.axes = find_axes(*sample.file, {"", 2, false}, name);
  return sample;
}

template <class Value>
Mask grey_values(const Pixels& pixels, const std::vector<Value>& values, const std::string& name) {
  Mask mask{pixels.sides, {}};
  mask.classes.reserve(static_cast<size_t>(count(mask.sides)));
  const auto channels = static_cast<size_t>(pixels.channels);
  for (size_t i = 0; i < values.size(); i += channels) {
    const Value* value = values.data() + i;
    VT_REQUIRE(DataError, channels == 1 || (value[0] == value[1] && value[1] == value[2]),
               "[data] {}: a mask must be grey but pixel {} has the colour {}, {}, {}", name,
               i / channels, value[0], value[1], value[2]);
    mask.classes.push_back(static_cast<int32_t>(value[0]));
  }
  return mask;
}

}  // namespace

Pixels decode_image_pixels(std::span<const std::byte> file, const std::string& name) {
  if (io::is_tiff(file)) {
    const ArraySample sample = tiff_sample(file, name);
    return read_pixels(sample, whole_box(sample.sides()), {});
  }
  Pixels pixels;
  if (io::is_deep_png(file)) {
    const io::DeepImage image = io::decode_deep_png(file, name);
    pixels.sides = {image.height, image.width};
    pixels.channels = image.channels;
    pixels.floats.assign(image.pixels.begin(), image.pixels.end());
    pixels.full_scale = 65535.0f;
    return pixels;
  }
  io::Image image = io::decode_image(file, name);
  pixels.sides = {image.height, image.width};
  pixels.channels = image.channels;
  pixels.values = std::move(image.pixels);
  return pixels;
}

Pixels read_image_pixels(const std::string& path) {
  return decode_image_pixels(read_bytes(path), path);
}

Shape image_file_shape(const std::string& path) {
  const core::MappedFile file(path);
  if (io::is_tiff(file.bytes())) {
    const ArraySample sample = tiff_sample(file.bytes(), path);
    return {sample.sides(), sample.channels(), ""};
  }
  const io::ImageSize size = io::image_size(file.bytes(), path);
  return {{size.height, size.width}, size.channels, ""};
}

Mask decode_image_mask(std::span<const std::byte> file, const std::string& name) {
  if (io::is_tiff(file)) {
    const ArraySample sample = tiff_sample(file, name);
    return read_integers(sample, whole_box(sample.sides()));
  }
  const Pixels pixels = decode_image_pixels(file, name);
  return with_values(pixels, [&](const auto& values) { return grey_values(pixels, values, name); });
}

Mask read_image_mask(const std::string& path) { return decode_image_mask(read_bytes(path), path); }

}  // namespace vitrail::data
