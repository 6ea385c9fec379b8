#include "vitrail/data/array_reader.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/data/array_labels.h"
#include "vitrail/data/array_samples.h"
#include "vitrail/data/class_folders.h"
#include "vitrail/data/files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

size_t file_sides(const config::Source& source, const config::Model& model) {
  return model.image_size.size() + (source.slices ? 1 : 0);
}

bool has_given_labels(const config::Source& source) {
  return !source.labels.empty() || !source.label_array.empty();
}

struct ArrayList {
  std::vector<std::string> class_names, paths;
  std::vector<int64_t> labels;  // of each path; empty = none
};

/// Folders of `root` that are not containers themselves.
std::vector<std::string> class_folders(const config::Source& source, const config::Model& model) {
  std::error_code unknown;
  const bool can = model.kind == "vit" || classifies(model);
  if (!can || regresses(model) || has_given_labels(source) ||
      !std::filesystem::is_directory(source.root, unknown) ||
      is_array_container(source.reader.value, source.root))
    return {};
  std::vector<std::string> folders = list_folders(source.root);
  std::erase_if(folders, [&](const std::string& path) {
    return is_array_container(source.reader.value, path);
  });
  std::sort(folders.begin(), folders.end());
  return folders;
}

ArrayList list_arrays(const config::Source& source, const config::Model& model) {
  const std::string& format = source.reader.value;
  const std::vector<std::string> folders = class_folders(source, model);
  if (folders.empty()) return {{}, list_array_files(format, source.root), {}};
  ArrayList list;
  for (const std::string& folder : folders) {
    const auto label = static_cast<int64_t>(list.class_names.size());
    list.class_names.push_back(std::filesystem::path(folder).filename().string());
    for (std::string& path : list_array_files(format, folder)) {
      list.paths.push_back(std::move(path));
      list.labels.push_back(label);
    }
  }
  return list;
}

class ArrayReader : public LabelledReader {
 public:
  ArrayReader(const config::Source& source, const config::Model& model, ArrayList list)
      : LabelledReader(source, model),
        samples_(
            std::move(list.paths),
            {source.reader.value, source.array, {source.axes, file_sides(source, model), false}},
            source),
        class_names_(std::move(list.class_names)),
        file_labels_(std::move(list.labels)),
        selected_(source.channels),
        channels_(channels_of(source, model)),
        // Only an image as a camera takes it is turned from grey to colour or back.
        converts_(source.channels.empty() && source.variables.empty()) {
    if (has_label_images(source, model)) {
      set_labels(open_label_files(source, model, source.reader.value, samples_.has_samples_axis()),
                 source.labels.empty() ? source.label_array : source.labels, source.root);
    } else if (has_given_labels(source)) {
      vector_ = read_label_vector(source, model, label_format(source, source.reader.value));
      VT_REQUIRE(DataError, vector_.size() == size(),
                 "[data] {}: expected one label for each of the {} samples of {} but found {}",
                 source.labels.empty() ? source.label_array : source.labels, size(), source.root,
                 vector_.size());
    }
  }

  int64_t size() const override { return samples_.size(); }

  SampleInfo describe(int64_t i) const override {
    SampleInfo info{samples_.path(i), -1, {}};
    const auto place = static_cast<size_t>(i);
    if (!vector_.classes.empty()) info.label = vector_.classes[place];
    if (!vector_.values.empty()) info.values = vector_.values[place];
    if (!file_labels_.empty()) info.label = file_labels_[static_cast<size_t>(samples_.file_of(i))];
    return info;
  }

  Shape shape(int64_t i) const override {
    const ArraySample sample = samples_.at(i);
    const std::vector<int64_t> chunks = sample.file->chunk_shape();
    return {sample.sides(),
            selected_.empty() ? sample.channels() : static_cast<int64_t>(selected_.size()),
            fmt::format("{}{}", core::name(sample.file->dtype()),
                        chunks.empty() ? "" : ", chunks " + data::describe(chunks))};
  }

  Pixels decode(int64_t i) const override {
    const ArraySample sample = samples_.at(i);
    return read(sample, whole_box(sample.sides()));
  }

  bool reads_boxes() const override { return true; }
  Pixels decode_box(int64_t i, const Box& box) const override { return read(samples_.at(i), box); }

  std::vector<int64_t> chunk_sides(int64_t i) const override {
    const ArraySample sample = samples_.at(i);
    const std::vector<int64_t> chunks = sample.file->chunk_shape();
    std::vector<int64_t> sides;
    for (const int64_t axis : sample.axes.sides)
      if (!chunks.empty()) sides.push_back(axis < 0 ? 1 : chunks[static_cast<size_t>(axis)]);
    return sides;
  }

  std::vector<std::string> class_names() const override { return class_names_; }

 private:
  Pixels read(const ArraySample& sample, const Box& box) const {
    const int64_t found =
        selected_.empty() ? sample.channels() : static_cast<int64_t>(selected_.size());
    const bool is_image = converts_ && sample.file->dtype() == core::DType::u8;
    VT_REQUIRE(DataError, found == channels_ || is_image,
               "[data] {}: expected {} channel(s) (model.in_channels, or the source's variables) "
               "but the array has {}; set channels or axes",
               sample.path, channels_, found);
    return read_pixels(sample, box, selected_);
  }

  ArraySamples samples_;
  std::vector<std::string> class_names_;
  std::vector<int64_t> file_labels_;
  LabelVector vector_;
  std::vector<int64_t> selected_;
  int64_t channels_;
  bool converts_;
};

}  // namespace

std::unique_ptr<Reader> open_arrays(const config::Source& source, const config::Model& model) {
  const auto chosen = static_cast<int64_t>(source.channels.size());
  VT_REQUIRE(ConfigError, chosen == 0 || chosen == channels_of(source, model),
             "[data] source '{}': channels must name as many channels as the model takes, {}, but "
             "names {}",
             source_name(source), channels_of(source, model), chosen);
  return std::make_unique<ArrayReader>(source, model, list_arrays(source, model));
}

}  // namespace vitrail::data
