#include "vitrail/data/array_labels.h"

#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/data/array_reader.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/io/raw.h"

namespace vitrail::data {
namespace {

/// Without labels they lie in the containers of the images, under label_array.
const std::string& root_of(const config::Source& source) {
  return source.labels.empty() ? source.root : source.labels;
}

bool has_axis(const std::string& letters, char letter) {
  return letters.find(letter) != std::string::npos;
}

std::string without_channels(std::string letters) {
  std::erase(letters, 'c');
  return letters;
}

/// The images' letters where they fit the labels; those of the labels' own file go before.
std::string letters_for(const config::Source& source, const io::ArrayFile& file) {
  const std::string& letters = source.axes;
  if (letters.empty() || !file.axes().empty()) return "";
  const size_t axes = file.shape().size();
  if (letters.size() == axes) return letters;
  const std::string sides = without_channels(letters);
  return sides.size() == axes ? sides : "";
}

std::string raw_type_of(int64_t bytes, bool learns_values) {
  if (learns_values) return bytes == 4 ? "float32" : bytes == 8 ? "float64" : "";
  return bytes == 1 ? "uint8" : bytes == 2 ? "uint16" : bytes == 4 ? "int32" : "";
}

/// shape and dtype of raw labels; see open_array_labels.
config::Source raw_labels(const config::Source& source, const config::Model& model,
                          const std::string& path) {
  config::Source labels = source;
  labels.offset = 0;
  const std::string& letters = source.axes;
  const size_t sides = model.image_size.size() + (source.slices ? 1 : 0);
  if (has_axis(letters, 'c') && letters.size() == source.shape.size())
    labels.shape.erase(labels.shape.begin() + static_cast<int64_t>(letters.find('c')));
  else if (letters.empty() && source.shape.size() > sides)
    labels.shape.erase(labels.shape.end() - static_cast<int64_t>(sides) - 1);
  if (regresses(model) && model.num_classes > 1)
    labels.shape.insert(labels.shape.end() - static_cast<int64_t>(sides), model.num_classes);
  const int64_t pixels = io::raw_bytes({{}, labels.shape, 0, false}, path);
  std::error_code error;
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  const bool fits = !error && pixels > 0 && bytes % pixels == 0;
  const std::string type = fits ? raw_type_of(bytes / pixels, regresses(model)) : "";
  VT_REQUIRE(DataError, !type.empty(),
             "[data] {}: raw labels of {} must have {} bytes a number but the file has {} bytes",
             path, describe(labels.shape), regresses(model) ? "4 or 8" : "1, 2 or 4",
             error ? 0 : bytes);
  labels.dtype = (io::parse_raw_type(source.dtype).is_big_endian ? ">" : "<") + type;
  return labels;
}

class ArrayLabels : public LabelFiles {
 public:
  ArrayLabels(const config::Source& source, const config::Model& model, ArrayPlace place,
              std::vector<std::string> paths)
      : samples_(std::move(paths), std::move(place), source), classes_(source, model) {}

  int64_t size() const override { return samples_.size(); }
  std::string path(int64_t i) const override { return samples_.path(i); }
  std::vector<int64_t> sides(int64_t i) const override { return samples_.at(i).sides(); }
  Mask mask(int64_t i, const Box& box) const override {
    return classes_.apply(read_integers(samples_.at(i), box), path(i));
  }
  Pixels values(int64_t i, const Box& box) const override {
    return read_values(samples_.at(i), box);
  }

 private:
  ArraySamples samples_;
  MaskClasses classes_;
};

int64_t class_of(double value, const config::Model& model, const std::string& path) {
  VT_REQUIRE(DataError,
             value == std::round(value) && value >= 0 &&
                 (model.num_classes <= 0 || value < static_cast<double>(model.num_classes)),
             "[data] {}: labels must be classes from 0 to {} (model.num_classes - 1) but one is {}",
             path, model.num_classes - 1, value);
  return static_cast<int64_t>(value);
}

void add_classes(const std::vector<double>& numbers, const io::ArrayFile& file,
                 const config::Model& model, const std::string& path, LabelVector& labels) {
  const std::vector<int64_t>& shape = file.shape();
  VT_REQUIRE(DataError, shape.size() == 1 || (shape.size() == 2 && shape[1] == 1),
             "[data] {}: labels of samples must be an array of one axis but it is {}", path,
             describe(shape));
  for (const double number : numbers) labels.classes.push_back(class_of(number, model, path));
}

void add_values(const std::vector<double>& numbers, const io::ArrayFile& file,
                const config::Model& model, const std::string& path, LabelVector& labels) {
  const std::vector<int64_t>& shape = file.shape();
  const int64_t values = shape.size() == 2 ? shape[1] : 1;
  VT_REQUIRE(DataError, (shape.size() == 1 || shape.size() == 2) && values == model.num_classes,
             "[data] {}: values to be learnt must be an array of samples x model.num_classes = {} "
             "but it is {}",
             path, model.num_classes, describe(shape));
  for (size_t at = 0; at < numbers.size(); at += static_cast<size_t>(values)) {
    std::vector<float> row;
    for (size_t k = at; k < at + static_cast<size_t>(values); ++k) {
      row.push_back(static_cast<float>(numbers[k]));
      VT_REQUIRE(DataError, !std::isinf(row.back()),
                 "[data] {}: values to be learnt must be finite or NaN but value {} is {}", path, k,
                 numbers[k]);
    }
    labels.values.push_back(std::move(row));
  }
}

}  // namespace

std::unique_ptr<LabelFiles> open_array_labels(const config::Source& source,
                                              const config::Model& model, const std::string& format,
                                              bool has_samples) {
  std::vector<std::string> paths = list_array_files(format, root_of(source));
  const config::Source labels = format == "raw" ? raw_labels(source, model, paths.front()) : source;
  const auto first = open_array_file(format, paths.front(), source.label_array, labels);
  const size_t sides = model.image_size.size() + (source.slices ? 1 : 0);
  ArrayPlace place{format, source.label_array, {letters_for(source, *first), sides, has_samples}};
  return std::make_unique<ArrayLabels>(labels, model, std::move(place), std::move(paths));
}

LabelVector read_label_vector(const config::Source& source, const config::Model& model,
                              const std::string& format) {
  VT_REQUIRE(ConfigError, format != "raw" && format != "images" && format != "nifti",
             "[data] source '{}': classes or values of samples must be an array of npy, npz, zarr, "
             "n5 or tiff but label_reader is {}",
             source_name(source), format);
  LabelVector labels;
  for (const std::string& path : list_array_files(format, root_of(source))) {
    const auto file = open_array_file(format, path, source.label_array, source);
    const std::vector<double> numbers = read_numbers(*file, path);
    if (regresses(model))
      add_values(numbers, *file, model, path, labels);
    else
      add_classes(numbers, *file, model, path, labels);
  }
  return labels;
}

}  // namespace vitrail::data
