#include "vitrail/data/image_part.h"

#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/windows.h"
#include "vitrail/io/image.h"
#include "vitrail/io/image_file.h"
#include "vitrail/io/png.h"

namespace vitrail::data {
namespace {

Pixels cut_out(const Pixels& whole, const Box& box) {
  Window window;
  window.origin = box.origin;
  window.sides = window.extent = box.sides;
  return cut(whole, window, std::vector<float>(static_cast<size_t>(whole.channels), 0.0f));
}

}  // namespace

Pixels read_image_part(const std::string& path, const Box& box) {
  static thread_local io::FileBuffer buffer;
  const std::span<const std::byte> file = buffer.read(path, io::ImageLimits{}.max_file_bytes);
  if (io::is_deep_png(file)) return cut_out(decode_image_pixels(file, path), box);
  io::Image image =
      io::decode_image_box(file, path,
                           {static_cast<int>(box.origin[1]), static_cast<int>(box.origin[0]),
                            static_cast<int>(box.sides[1]), static_cast<int>(box.sides[0])});
  Pixels pixels;
  pixels.sides = box.sides;
  pixels.channels = image.channels;
  pixels.values = std::move(image.pixels);
  return pixels;
}

}  // namespace vitrail::data
