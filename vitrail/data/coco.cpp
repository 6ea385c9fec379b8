#include <filesystem>
#include <string_view>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/annotated_boxes.h"
#include "vitrail/data/coco_annotations.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

CocoAnnotations read_annotations(const std::string& path) {
  const core::MappedFile file(path);
  const auto* letters = reinterpret_cast<const char*>(file.bytes().data());
  return parse_coco(std::string_view(letters, file.bytes().size()), path);
}

class Coco : public Reader {
 public:
  Coco(const config::Source& source, const config::Model& model)
      : Reader(model.in_channels),
        root_(source.root),
        labels_(source.labels),
        annotations_(read_annotations(source.labels)) {
    if (annotations_.crowds + annotations_.empty > 0)
      core::log_info("[data] {}: left out {} annotations of crowds and {} boxes without extent",
                     labels_, annotations_.crowds, annotations_.empty);
  }

  int64_t size() const override { return static_cast<int64_t>(annotations_.images.size()); }
  SampleInfo describe(int64_t i) const override { return {path_of(i), -1}; }
  std::vector<std::string> class_names() const override { return annotations_.class_names; }
  int64_t max_boxes() const override { return annotations_.max_boxes; }

  std::vector<LabelledBox> boxes(int64_t i) const override {
    const CocoImage& image = at(i);
    const auto first = annotations_.boxes.begin() + image.first_box;
    return {first, first + image.num_boxes};
  }

  Pixels decode(int64_t i) const override {
    Pixels pixels = read_image_pixels(path_of(i));
    check_size(i, pixels.sides);
    return pixels;
  }

  Shape shape(int64_t i) const override {
    Shape shape = image_file_shape(path_of(i));
    check_size(i, shape.sides);
    return shape;
  }

 private:
  const CocoImage& at(int64_t i) const { return annotations_.images.at(static_cast<size_t>(i)); }
  std::string path_of(int64_t i) const { return (root_ / at(i).file).string(); }
  void check_size(int64_t i, const std::vector<int64_t>& sides) const {
    check_annotated_size(sides, path_of(i), at(i).width, at(i).height, labels_);
  }

  fs::path root_;
  std::string labels_;
  CocoAnnotations annotations_;
};

}  // namespace

std::unique_ptr<Reader> open_coco(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  std::error_code unknown;
  VT_REQUIRE(DataError, fs::is_directory(source.root, unknown),
             "[data] {}: no such folder of images; set root of the source '{}'", source.root,
             source_name(source));
  VT_REQUIRE(ConfigError, !source.labels.empty(),
             "[data] source '{}': labels must name COCO's instances file (JSON) but is empty",
             source_name(source));
  return std::make_unique<Coco>(source, model);
}

}  // namespace vitrail::data
