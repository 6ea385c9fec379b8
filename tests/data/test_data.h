#pragma once
/// Small sources and recipes sections for the tests of data/.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data::test {

/// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
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

/// Creates the parents. `number` chooses the pattern; the extension (.png, else JPEG) the format.
void write_image(const std::string& path, std::vector<int64_t> sides, int64_t channels, uint64_t number);
void write_bytes(const std::string& path, const std::string& bytes);

}  // namespace vitrail::data::test
