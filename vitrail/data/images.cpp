#include "vitrail/core/error.h"
#include "vitrail/data/files.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/label_files.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

class Images : public LabelledReader {
 public:
  Images(const config::Source& source, const config::Model& model)
      : LabelledReader(source, model),
        images_(list_files(source.root, io::has_image_extension, kImageKinds)) {
    if (source.labels.empty()) return;
    set_labels(open_label_files(source, model, "images", false), source.labels, source.root);
  }

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  SampleInfo describe(int64_t i) const override { return {image(i), -1, {}}; }
  Pixels decode(int64_t i) const override { return read_image_pixels(image(i)); }
  Shape shape(int64_t i) const override { return image_file_shape(image(i)); }

 private:
  const std::string& image(int64_t i) const { return images_.at(static_cast<size_t>(i)); }

  std::vector<std::string> images_;
};

}  // namespace

std::unique_ptr<Reader> open_images(const config::Source& source, const config::Model& model) {
  VT_REQUIRE(ConfigError, model.image_size.size() == 2,
             "[data] source '{}': the reader images reads images of 2 sides but model.image_size "
             "has {}",
             source_name(source), model.image_size.size());
  return std::make_unique<Images>(source, model);
}

}  // namespace vitrail::data
