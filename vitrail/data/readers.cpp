#include "vitrail/data/readers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "vitrail/core/error.h"
#include "vitrail/data/split.h"

namespace vitrail::data {
namespace {

using OpenReader = std::unique_ptr<Reader> (*)(const config::Source&, const config::Model&);

const std::map<std::string, OpenReader>& registry() {
  static const std::map<std::string, OpenReader> readers{
      {"image_folder", open_image_folder},
      {"images", open_images},
      {"image_stack", open_image_stack},
      {"nifti", open_nifti},
      {"digits", open_digits},
      {"random", open_random},
  };
  return readers;
}

/// A run of another reader's list.
class SplitReader : public Reader {
 public:
  SplitReader(std::unique_ptr<Reader> whole, int64_t channels, int64_t first, int64_t size)
      : Reader(channels), whole_(std::move(whole)), first_(first), size_(size) {}
  int64_t size() const override { return size_; }
  SampleInfo describe(int64_t i) const override { return whole_->describe(first_ + i); }
  Pixels decode(int64_t i) const override { return whole_->decode(first_ + i); }
  Shape shape(int64_t i) const override { return whole_->shape(first_ + i); }
  bool has_masks() const override { return whole_->has_masks(); }
  Mask decode_mask(int64_t i) const override { return whole_->decode_mask(first_ + i); }
  bool is_costly() const override { return whole_->is_costly(); }
  std::vector<std::string> class_names() const override { return whole_->class_names(); }

 private:
  std::unique_ptr<Reader> whole_;
  int64_t first_, size_;
};

/// A stack takes its split from its slices, by itself.
std::unique_ptr<Reader> take_split(std::unique_ptr<Reader> whole, const config::Source& source,
                                   int64_t channels) {
  if (source.split.empty() || source.reader == "image_stack") return whole;
  const SplitRange range = split_range(source, whole->size(), source.root);
  return std::make_unique<SplitReader>(std::move(whole), channels, range.first,
                                       range.last - range.first);
}

}  // namespace

Shape Reader::shape(int64_t i) const {
  const Pixels pixels = decode(i);
  return {pixels.sides, pixels.channels};
}

Mask Reader::decode_mask(int64_t i) const {
  core::fail("[data] {}: has no mask", describe(i).path);
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

SplitRange split_range(const config::Source& source, int64_t size, const std::string& path) {
  const std::vector<double>& split = source.split;
  if (split.empty()) return {0, size};
  VT_REQUIRE(ConfigError,
             split.size() == 2 && split[0] >= 0 && split[0] < split[1] && split[1] <= 1,
             "[data] source '{}': split must be [start, end] with 0 <= start < end <= 1",
             source_name(source));
  const auto n = static_cast<double>(size);
  const SplitRange range{std::llround(split[0] * n), std::llround(split[1] * n)};
  VT_REQUIRE(DataError, range.first < range.last,
             "[data] {}: split [{}, {}] of {} samples is empty", path, split[0], split[1], size);
  return range;
}

bool segments(const config::Model& model) { return model.kind == "unetr" || model.kind == "sap"; }

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
