#include <filesystem>
#include <string_view>

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/image_list_manifest.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

Manifest read_manifest(const config::Source& source) {
  const core::MappedFile file(source.root);
  const auto* letters = reinterpret_cast<const char*>(file.bytes().data());
  return parse_image_manifest(std::string_view(letters, file.bytes().size()), source.root);
}

class ImageList : public Reader {
 public:
  ImageList(const config::Source& source, const config::Model& model)
      : Reader(model.in_channels),
        manifest_(read_manifest(source)),
        folder_(fs::path(source.root).parent_path()),
        classes_(source, model) {
    const auto needs = [&](bool has, const char* column) {
      VT_REQUIRE(DataError, has, "[data] {}: the model learns from a column '{}' but there are: {}",
                 source.root, column, manifest_.keys);
    };
    needs(!segments(model) || manifest_.has_masks, "mask");
    needs(!classifies(model) || manifest_.has_labels, "label");
    if (regresses(model) && model.kind == "vit") check_values(source, model);
    if (manifest_.has_labels)
      for (const ListedImage& image : manifest_.images)
        check_label(image.label, model, image.where);
  }

  int64_t size() const override { return static_cast<int64_t>(manifest_.images.size()); }
  bool has_masks() const override { return manifest_.has_masks; }
  std::vector<std::string> class_names() const override { return manifest_.class_names; }
  Pixels decode(int64_t i) const override { return read_image_pixels(path_of(i)); }
  Shape shape(int64_t i) const override { return image_file_shape(path_of(i)); }

  SampleInfo describe(int64_t i) const override {
    const auto values = manifest_.values.begin() + i * manifest_.num_values;
    return {path_of(i), at(i).label, std::vector<float>(values, values + manifest_.num_values)};
  }

  Mask decode_mask(int64_t i) const override {
    const std::string path = (folder_ / at(i).mask).string();
    Mask mask = classes_.apply(read_image_mask(path), path);
    check_mask_sides(mask.sides, path, shape(i).sides, path_of(i));
    return mask;
  }

 private:
  void check_values(const config::Source& source, const config::Model& model) const {
    VT_REQUIRE(
        DataError, manifest_.num_values == model.num_classes,
        "[data] {}: the model learns model.num_classes = {} values of an image but the columns "
        "value0, value1, ... are {}; there are: {}",
        source.root, model.num_classes, manifest_.num_values, manifest_.keys);
  }

  const ListedImage& at(int64_t i) const { return manifest_.images.at(static_cast<size_t>(i)); }
  std::string path_of(int64_t i) const { return (folder_ / at(i).path).string(); }

  Manifest manifest_;
  fs::path folder_;
  MaskClasses classes_;
};

}  // namespace

std::unique_ptr<Reader> open_image_list(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  return std::make_unique<ImageList>(source, model);
}

}  // namespace vitrail::data
