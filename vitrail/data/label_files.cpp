#include "vitrail/data/label_files.h"

#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/data/array_labels.h"
#include "vitrail/data/files.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/nifti_files.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

/// JPEG and PNG.
class ImageLabels : public LabelFiles {
 public:
  ImageLabels(const config::Source& source, const config::Model& model)
      : paths_(list_files(source.labels, io::has_image_extension, kImageKinds)),
        classes_(source, model) {}

  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  std::string path(int64_t i) const override { return paths_.at(static_cast<size_t>(i)); }
  std::vector<int64_t> sides(int64_t i) const override { return image_file_shape(path(i)).sides; }
  Mask mask(int64_t i, const Box& box) const override {
    return classes_.apply(take_box(read_image_mask(path(i)), box), path(i));
  }
  Pixels values(int64_t i, const Box& box) const override {
    return take_box(as_stored(read_image_pixels(path(i))), box);
  }

 private:
  static Pixels as_stored(Pixels pixels) {
    if (!pixels.is_float()) pixels.floats.assign(pixels.values.begin(), pixels.values.end());
    pixels.values.clear();
    pixels.full_scale = 1.0f;
    return pixels;
  }

  std::vector<std::string> paths_;
  MaskClasses classes_;
};

Window window_of(const Box& box) { return {0, box.origin, box.sides, box.sides, -1}; }

}  // namespace

Box whole_box(const std::vector<int64_t>& sides) {
  return {std::vector<int64_t>(sides.size(), 0), sides};
}

Pixels take_box(Pixels whole, const Box& box) {
  if (box.sides == whole.sides) return whole;
  return cut(whole, window_of(box), std::vector<float>(static_cast<size_t>(whole.channels)));
}

Mask take_box(Mask whole, const Box& box) {
  if (box.sides == whole.sides) return whole;
  return cut(whole, window_of(box));
}

std::string label_format(const config::Source& source, const std::string& own) {
  return source.label_reader == "same" ? own : source.label_reader.value;
}

bool has_label_images(const config::Source& source, const config::Model& model) {
  const bool is_given = !source.labels.empty() || !source.label_array.empty();
  return is_given && model.kind != "vit" && model.kind != "diffusion";
}

std::unique_ptr<LabelFiles> open_label_files(const config::Source& source,
                                             const config::Model& model, const std::string& own,
                                             bool has_samples) {
  const std::string format = label_format(source, own);
  if (format == "images") return std::make_unique<ImageLabels>(source, model);
  if (format == "nifti") return open_nifti_labels(source, model);
  return open_array_labels(source, model, format, has_samples);
}

LabelledReader::LabelledReader(const config::Source& source, const config::Model& model)
    : Reader(channels_of(source, model)),
      learns_values_(regresses(model)),
      num_values_(model.num_classes) {}

void LabelledReader::set_labels(std::unique_ptr<LabelFiles> labels, const std::string& labels_root,
                                const std::string& root) {
  check_mask_count(static_cast<size_t>(labels->size()), labels_root, static_cast<size_t>(size()),
                   root);
  labels_ = std::move(labels);
}

void LabelledReader::check_sides(int64_t i) const {
  VT_CHECK(labels_ != nullptr, "[data] {}: has no labels", describe(i).path);
  check_mask_sides(labels_->sides(i), labels_->path(i), shape(i).sides, describe(i).path);
}

Mask LabelledReader::decode_mask(int64_t i) const {
  return LabelledReader::decode_mask_box(i, whole_box(shape(i).sides));
}

Mask LabelledReader::decode_mask_box(int64_t i, const Box& box) const {
  check_sides(i);
  return labels_->mask(i, box);
}

Pixels LabelledReader::decode_values(int64_t i) const {
  return LabelledReader::decode_values_box(i, whole_box(shape(i).sides));
}

Pixels LabelledReader::decode_values_box(int64_t i, const Box& box) const {
  check_sides(i);
  Pixels values = labels_->values(i, box);
  VT_REQUIRE(DataError, values.channels == num_values_,
             "[data] {}: must have model.num_classes = {} values a pixel but has {}",
             labels_->path(i), num_values_, values.channels);
  return values;
}

}  // namespace vitrail::data
