#pragma once
/// Masks and images of values in files of any format, in the order of the images they belong to.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

/// Threads  const functions are called from many threads at once.
class LabelFiles {
 public:
  virtual ~LabelFiles() = default;
  virtual int64_t size() const = 0;
  virtual std::string path(int64_t i) const = 0;
  virtual std::vector<int64_t> sides(int64_t i) const = 0;
  /// Classes of a box. throws   DataError naming the file: a value that stands for no class.
  virtual Mask mask(int64_t i, const Box& box) const = 0;
  /// Floats [box..., V] as stored, of full scale 1.
  virtual Pixels values(int64_t i, const Box& box) const = 0;
};

/// The images that source.labels (and label_array) mean, in the format of label_reader; `own` is the
/// format of "same". `has_samples`: the images lie along an axis of samples, and so do their labels.
/// throws   DataError: nothing there.
std::unique_ptr<LabelFiles> open_label_files(const config::Source& source,
                                             const config::Model& model, const std::string& own,
                                             bool has_samples);

/// source.label_reader, or `own` for "same".
std::string label_format(const config::Source& source, const std::string& own);

/// Labels are there and are images: masks, or values for a model that learns values per pixel.
bool has_label_images(const config::Source& source, const config::Model& model);

/// A reader whose labels, if any, are images of the sides of its own.
class LabelledReader : public Reader {
 public:
  LabelledReader(const config::Source& source, const config::Model& model);

  bool has_masks() const override { return labels_ != nullptr && !learns_values_; }
  bool has_value_images() const override { return labels_ != nullptr && learns_values_; }
  Mask decode_mask(int64_t i) const override;
  Mask decode_mask_box(int64_t i, const Box& box) const override;
  Pixels decode_values(int64_t i) const override;
  Pixels decode_values_box(int64_t i, const Box& box) const override;

 protected:
  /// Call once size() is right. throws   DataError: not as many as there are images.
  void set_labels(std::unique_ptr<LabelFiles> labels, const std::string& labels_root,
                  const std::string& root);

 private:
  void check_sides(int64_t i) const;

  std::unique_ptr<LabelFiles> labels_;
  bool learns_values_;
  int64_t num_values_;
};

/// All of an image of these sides.
Box whole_box(const std::vector<int64_t>& sides);

/// A part of what a file holds; the whole is not copied.
Pixels take_box(Pixels whole, const Box& box);
Mask take_box(Mask whole, const Box& box);

}  // namespace vitrail::data
