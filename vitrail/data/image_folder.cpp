#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().native().starts_with('.'); }

[[noreturn]] void fail_listing(const fs::path& folder, const std::error_code& error) {
  core::fail<core::DataError>("[data] {}: cannot list the folder: {}", folder.string(),
                              error.message());
}

/// Class folders below the root, sorted by name.
std::vector<std::string> list_classes(const fs::path& root) {
  std::vector<std::string> classes;
  std::error_code error, unknown;
  for (fs::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->is_directory(unknown) && !is_hidden(entry->path()))
      classes.push_back(entry->path().filename().string());
  if (error) fail_listing(root, error);
  std::sort(classes.begin(), classes.end());
  return classes;
}

/// Images at any depth below a class folder, sorted by path. Links to folders are followed; a loop
/// of links ends in the system's error.
std::vector<std::string> list_images(const fs::path& folder) {
  std::vector<std::string> images;
  std::error_code error, unknown;
  fs::recursive_directory_iterator entry(folder, fs::directory_options::follow_directory_symlink,
                                         error),
      end;
  for (; !error && entry != end; entry.increment(error)) {
    if (is_hidden(entry->path()))
      entry.disable_recursion_pending();
    else if (io::has_image_extension(entry->path().string()) && !entry->is_directory(unknown))
      images.push_back(entry->path().string());
  }
  if (error) fail_listing(folder, error);
  std::sort(images.begin(), images.end());
  return images;
}

class ImageFolder : public Reader {
 public:
  ImageFolder(std::vector<std::string> classes, std::vector<SampleInfo> samples, int64_t channels)
      : Reader(channels), classes_(std::move(classes)), samples_(std::move(samples)) {}

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  SampleInfo describe(int64_t i) const override { return at(i); }
  std::vector<std::string> class_names() const override { return classes_; }

  Pixels decode(int64_t i) const override {
    io::Image image = io::read_image(at(i).path);
    Pixels pixels;
    pixels.sides = {image.height, image.width};
    pixels.channels = image.channels;
    pixels.values = std::move(image.pixels);
    return pixels;
  }

  Shape shape(int64_t i) const override {
    const core::MappedFile file(at(i).path);
    const io::ImageSize size = io::image_size(file.bytes(), at(i).path);
    return {{size.height, size.width}, size.channels};
  }

 private:
  const SampleInfo& at(int64_t i) const { return samples_.at(static_cast<size_t>(i)); }

  std::vector<std::string> classes_;
  std::vector<SampleInfo> samples_;
};

}  // namespace

std::unique_ptr<Reader> open_image_folder(const config::Source& source,
                                          const config::Model& model) {
  VT_REQUIRE(ConfigError, model.image_size.size() == 2,
             "[data] source '{}': the reader image_folder reads images of 2 sides but "
             "model.image_size has {}",
             source_name(source), model.image_size.size());
  std::error_code error;
  VT_REQUIRE(DataError, fs::is_directory(source.root, error),
             "[data] {}: no such folder; set root of the source '{}'", source.root,
             source_name(source));
  std::vector<std::string> classes = list_classes(source.root);
  VT_REQUIRE(
      DataError, !classes.empty(),
      "[data] {}: expected one folder per class but found none; the reader image_folder wants "
      "root/CLASS/image.jpg",
      source.root);
  std::vector<SampleInfo> samples;
  for (size_t label = 0; label < classes.size(); ++label) {
    const fs::path folder = fs::path(source.root) / classes[label];
    std::vector<std::string> images = list_images(folder);
    VT_REQUIRE(DataError, !images.empty(),
               "[data] {}: the class folder holds no .jpg, .jpeg or .png file", folder.string());
    for (std::string& path : images)
      samples.push_back({std::move(path), static_cast<int64_t>(label)});
  }
  return std::make_unique<ImageFolder>(std::move(classes), std::move(samples), model.in_channels);
}

}  // namespace vitrail::data
