#include "vitrail/data/readers.h"

#include <algorithm>
#include <map>
#include <set>

#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/split.h"

namespace vitrail::data {
namespace {

using OpenReader = std::unique_ptr<Reader> (*)(const config::Source&, const config::Model&);

const std::map<std::string, OpenReader>& registry() {
  static const std::map<std::string, OpenReader> readers{
      {"image_folder", open_image_folder},
      {"image_list", open_image_list},
      {"images", open_images},
      {"image_stack", open_image_stack},
      {"cifar", open_cifar},
      {"idx", open_idx},
      {"nifti", open_nifti},
      {"npy", open_arrays},
      {"raw", open_arrays},
      {"tiff", open_arrays},
      {"zarr", open_arrays},
      {"n5", open_arrays},
      {"coco", open_coco},
      {"voc", open_voc},
      {"tar", open_tar},
      {"digits", open_digits},
      {"random", open_random},
  };
  return readers;
}

/// Some of another reader's samples, in its order: a run of its list, or chosen ones.
class SplitReader : public Reader {
 public:
  SplitReader(std::unique_ptr<Reader> whole, int64_t channels, SplitRange range)
      : Reader(channels),
        whole_(std::move(whole)),
        first_(range.first),
        size_(range.last - range.first) {}
  SplitReader(std::unique_ptr<Reader> whole, int64_t channels, std::vector<int64_t> places)
      : Reader(channels),
        whole_(std::move(whole)),
        size_(static_cast<int64_t>(places.size())),
        places_(std::move(places)) {}
  int64_t size() const override { return size_; }
  SampleInfo describe(int64_t i) const override { return whole_->describe(at(i)); }
  Pixels decode(int64_t i) const override { return whole_->decode(at(i)); }
  Shape shape(int64_t i) const override { return whole_->shape(at(i)); }
  bool has_masks() const override { return whole_->has_masks(); }
  Mask decode_mask(int64_t i) const override { return whole_->decode_mask(at(i)); }
  bool is_costly() const override { return whole_->is_costly(); }
  std::vector<std::string> class_names() const override { return whole_->class_names(); }
  bool has_value_images() const override { return whole_->has_value_images(); }
  Pixels decode_values(int64_t i) const override { return whole_->decode_values(at(i)); }
  std::vector<LabelledBox> boxes(int64_t i) const override { return whole_->boxes(at(i)); }
  int64_t max_boxes() const override { return whole_->max_boxes(); }
  bool reads_boxes() const override { return whole_->reads_boxes(); }
  Pixels decode_box(int64_t i, const Box& box) const override {
    return whole_->decode_box(at(i), box);
  }
  Mask decode_mask_box(int64_t i, const Box& box) const override {
    return whole_->decode_mask_box(at(i), box);
  }
  Pixels decode_values_box(int64_t i, const Box& box) const override {
    return whole_->decode_values_box(at(i), box);
  }
  std::vector<int64_t> chunk_sides(int64_t i) const override { return whole_->chunk_sides(at(i)); }

 private:
  int64_t at(int64_t i) const {
    return places_.empty() ? first_ + i : places_.at(static_cast<size_t>(i));
  }

  std::unique_ptr<Reader> whole_;
  int64_t first_ = 0, size_;
  std::vector<int64_t> places_;  // empty: the run from first_ on
};

Window window_of(const Box& box) { return {0, box.origin, box.sides, box.sides, -1}; }

Pixels cut_box(const Pixels& pixels, const Box& box) {
  return cut(pixels, window_of(box), std::vector<float>(static_cast<size_t>(pixels.channels)));
}

/// Ratios of a stack are those of its slices, which it takes by itself.
std::unique_ptr<Reader> take_split(std::unique_ptr<Reader> whole, const config::Source& source,
                                   int64_t channels) {
  if (chooses_by_name(source)) {
    std::vector<int64_t> places =
        split_places(source, whole->size(), [&](int64_t i) { return whole->describe(i).path; });
    return std::make_unique<SplitReader>(std::move(whole), channels, std::move(places));
  }
  if (source.split.empty() || source.reader == "image_stack") return whole;
  const SplitRange range = split_range(source, whole->size(), source.root);
  return std::make_unique<SplitReader>(std::move(whole), channels, range);
}

}  // namespace

Shape Reader::shape(int64_t i) const {
  const Pixels pixels = decode(i);
  return {pixels.sides, pixels.channels};
}

Mask Reader::decode_mask(int64_t i) const {
  core::fail("[data] {}: has no mask", describe(i).path);
}

Pixels Reader::decode_values(int64_t i) const {
  core::fail("[data] {}: has no values to be learnt", describe(i).path);
}

std::vector<LabelledBox> Reader::boxes(int64_t) const { return {}; }

std::vector<int64_t> Reader::chunk_sides(int64_t) const { return {}; }

Pixels Reader::decode_box(int64_t i, const Box& box) const { return cut_box(decode(i), box); }

Mask Reader::decode_mask_box(int64_t i, const Box& box) const {
  return cut(decode_mask(i), window_of(box));
}

Pixels Reader::decode_values_box(int64_t i, const Box& box) const {
  return cut_box(decode_values(i), box);
}

Sample Reader::read(int64_t i) const {
  const SampleInfo info = describe(i);
  Sample sample;
  sample.image = to_tensor(to_channels(decode(i), channels_, info.path));
  sample.label = info.label;
  if (has_masks()) sample.mask = to_tensor(decode_mask(i));
  sample.index = i;
  return sample;
}

bool segments(const config::Model& model) {
  const bool can = model.kind == "unetr" || model.kind == "sap" ||
                   (model.kind == "rat" && model.rat.head == "segmentation");
  return can && !(model.loss == "mse");
}

bool regresses(const config::Model& model) {
  const bool can = model.kind == "vit" || model.kind == "unetr" || model.kind == "sap";
  return can && model.loss == "mse";
}

int64_t channels_of(const config::Source& source, const config::Model& model) {
  if (source.variables.empty()) return model.in_channels;
  std::set<std::string> seen;
  for (const std::string& name : source.variables) {
    const auto& known = model.variables;
    VT_REQUIRE(ConfigError, std::find(known.begin(), known.end(), name) != known.end(),
               "[data] source '{}': variable '{}' is not one of model.variables",
               source_name(source), name);
    VT_REQUIRE(ConfigError, seen.insert(name).second,
               "[data] source '{}': variable '{}' is named twice", source_name(source), name);
  }
  return static_cast<int64_t>(source.variables.size());
}

std::string source_name(const config::Source& source) {
  return source.name.empty() ? source.reader.value : source.name;
}

std::unique_ptr<Reader> open_reader(const config::Source& source, const config::Model& model) {
  const auto entry = registry().find(source.reader.value);
  VT_REQUIRE(ConfigError, entry != registry().end(), "[data] source '{}': reader '{}' is not known",
             source_name(source), source.reader.value);
  const int64_t channels = channels_of(source, model);
  return take_split(entry->second(source, model), source, channels);
}

}  // namespace vitrail::data
