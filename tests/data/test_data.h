#pragma once
/// Small sources and recipes sections for the tests of data/.

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <zlib.h>

#include "vitrail/config/recipe.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/pixels.h"
#include "vitrail/io/image.h"

namespace vitrail::data::test {

/// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "vitrail_data_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + name);
    root_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path(const std::string& name = "") const { return (root_ / name).string(); }

 private:
  std::filesystem::path root_;
};

/// Bytes of a fixed pseudo-random pattern, different for every `number`.
inline Pixels noise(std::vector<int64_t> sides, int64_t channels, uint64_t number = 0) {
  Pixels pixels;
  pixels.sides = std::move(sides);
  pixels.channels = channels;
  for (int64_t i = 0; i < count(pixels.sides) * channels; ++i)
    pixels.values.push_back(static_cast<uint8_t>(
        core::draw({1, core::Stream::test, 0, 0}, number, static_cast<uint32_t>(i))));
  return pixels;
}

inline config::Model model_of(std::vector<int64_t> sides, int64_t channels, int64_t classes) {
  config::Model model;
  model.image_size = std::move(sides);
  model.in_channels = channels;
  model.num_classes = classes;
  return model;
}

/// `size` samples of the reader random.
inline config::Source random_source(int64_t size) {
  config::Source source;
  source.reader.value = "random";
  source.root = std::to_string(size);
  return source;
}

inline config::Source folder_source(const std::string& root) {
  config::Source source;
  source.reader.value = "image_folder";
  source.root = root;
  return source;
}

/// Creates the parents.
inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

/// `number` chooses the pattern; a name that ends in "png" or "PNG" is a PNG, any other a JPEG.
inline void write_image(const std::string& path, std::vector<int64_t> sides, int64_t channels,
                        uint64_t number = 0) {
  const Pixels pixels = noise(std::move(sides), channels, number);
  io::Image image;
  image.height = static_cast<int>(pixels.sides[0]);
  image.width = static_cast<int>(pixels.sides[1]);
  image.channels = static_cast<int>(channels);
  image.pixels = pixels.values;
  const bool is_png = path.ends_with("png") || path.ends_with("PNG");
  write_bytes(path, is_png ? io::encode_png(image) : io::encode_jpeg(image));
}

/// A grey PNG of these values.
inline void write_grey(const std::string& path, std::vector<int64_t> sides,
                       const std::vector<uint8_t>& values) {
  io::Image image;
  image.height = static_cast<int>(sides[0]);
  image.width = static_cast<int>(sides[1]);
  image.channels = 1;
  image.pixels = values;
  write_bytes(path, io::encode_png(image));
}

/// A model that learns a class per pixel.
inline config::Model segmenter(std::vector<int64_t> sides, int64_t channels, int64_t classes) {
  config::Model model = model_of(std::move(sides), channels, classes);
  model.kind.value = "unetr";
  return model;
}

inline config::Source source_of(const std::string& reader, const std::string& root,
                                const std::string& labels = "") {
  config::Source source;
  source.reader.value = reader;
  source.root = root;
  source.labels = labels;
  return source;
}

inline void write_gzip(const std::string& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
}

/// The message of the Kind that `body` must throw; "" when it throws nothing of that kind.
template <class Kind, class Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Kind& error) {
    return error.what();
  }
  return "";
}

}  // namespace vitrail::data::test
