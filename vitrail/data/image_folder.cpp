#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/class_folders.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/image_part.h"
#include "vitrail/data/readers.h"
#include "vitrail/data/value_range.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

/// True when every sample is a part of an image, drawn anew each time: then the rest of a JPEG need
/// not be decoded. Where many windows are cut from an image it is decoded once instead.
bool takes_parts(const config::Source& source) {
  return !source.augment.empty() && source.augment.front().starts_with("resized_crop") &&
         source.random_crop.per_epoch == 0 && source.tile.empty() &&
         !RangeRule(source).needs_whole_file();
}

class ImageFolder : public Reader {
 public:
  ImageFolder(ClassFolders classes, int64_t channels, bool reads_parts)
      : Reader(channels),
        classes_(std::move(classes.names)),
        samples_(std::move(classes.samples)),
        reads_parts_(reads_parts) {}

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  SampleInfo describe(int64_t i) const override { return at(i); }
  std::vector<std::string> class_names() const override { return classes_; }

  Pixels decode(int64_t i) const override { return read_image_pixels(at(i).path); }
  Shape shape(int64_t i) const override { return image_file_shape(at(i).path); }
  bool reads_boxes() const override { return reads_parts_; }
  Pixels decode_box(int64_t i, const Box& box) const override {
    return read_image_part(at(i).path, box);
  }

 private:
  const SampleInfo& at(int64_t i) const { return samples_.at(static_cast<size_t>(i)); }

  std::vector<std::string> classes_;
  std::vector<SampleInfo> samples_;
  bool reads_parts_;
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
      model.in_channels, takes_parts(source));
}

}  // namespace vitrail::data
