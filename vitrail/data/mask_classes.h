#pragma once
/// From the values in mask files to classes.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// source.label_values: value k of the list is class k; an empty list: values are classes.
class MaskClasses {
 public:
  /// throws   ConfigError: more values than model.num_classes, a value twice.
  MaskClasses(const config::Source& source, const config::Model& model);

  /// throws   DataError naming the file and the value that stands for no class.
  Mask apply(Mask values, const std::string& path) const;
  /// The same for values read as floats.
  Mask apply(const std::vector<float>& values, std::vector<int64_t> sides,
             const std::string& path) const;

 private:
  int32_t class_of(int64_t value, const std::string& path) const;

  std::vector<int64_t> values_;
  int64_t num_classes_;
};

/// throws   DataError naming both files unless the mask has the image's sides.
void check_mask_sides(const std::vector<int64_t>& mask, const std::string& mask_path,
                      const std::vector<int64_t>& image, const std::string& image_path);

/// throws   DataError naming both roots unless there is one mask per image.
void check_mask_count(size_t masks, const std::string& labels, size_t images,
                      const std::string& root);

}  // namespace vitrail::data
