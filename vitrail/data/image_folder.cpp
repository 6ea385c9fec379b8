#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/class_folders.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

class ImageFolder : public Reader {
 public:
  ImageFolder(ClassFolders classes, int64_t channels)
      : Reader(channels),
        classes_(std::move(classes.names)),
        samples_(std::move(classes.samples)) {}

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  SampleInfo describe(int64_t i) const override { return at(i); }
  std::vector<std::string> class_names() const override { return classes_; }

  Pixels decode(int64_t i) const override { return read_image_pixels(at(i).path); }
  Shape shape(int64_t i) const override { return image_file_shape(at(i).path); }

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
  return std::make_unique<ImageFolder>(
      list_class_folders(source.root, io::has_image_extension, "image_folder", kImageKinds),
      model.in_channels);
}

}  // namespace vitrail::data
