#pragma once
/// Labels in arrays: images of classes or values, or one class or row of values per sample.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/array_samples.h"
#include "vitrail/data/label_files.h"

namespace vitrail::data {

/// Masks and images of values. Raw files take source.shape without its channels; their type follows
/// from their length: 1, 2 or 4 bytes a pixel are uint8, uint16 and int32, for values 4 and 8 bytes
/// are float32 and float64, in the byte order of source.dtype.
std::unique_ptr<LabelFiles> open_array_labels(const config::Source& source,
                                              const config::Model& model, const std::string& format,
                                              bool has_samples);

/// One class, or model.num_classes values for a model that learns values, of every sample: arrays
/// [N] and [N, V], those of several files behind one another.
/// throws   DataError: other axes, a class that is none.
struct LabelVector {
  std::vector<int64_t> classes;            // empty where values are learnt
  std::vector<std::vector<float>> values;  // empty where classes are
  int64_t size() const { return static_cast<int64_t>(classes.size() + values.size()); }
};
LabelVector read_label_vector(const config::Source& source, const config::Model& model,
                              const std::string& format);

}  // namespace vitrail::data
