#include "vitrail/data/readers.h"

#include <cmath>
#include <map>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

using OpenReader = std::unique_ptr<Reader> (*)(const config::Source&, const config::Model&);

const std::map<std::string, OpenReader>& registry() {
  static const std::map<std::string, OpenReader> readers{
      {"image_folder", open_image_folder},
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
  std::vector<std::string> class_names() const override { return whole_->class_names(); }

 private:
  std::unique_ptr<Reader> whole_;
  int64_t first_, size_;
};

std::unique_ptr<Reader> take_split(std::unique_ptr<Reader> whole, const config::Source& source,
                                   const config::Model& model) {
  const std::vector<double>& split = source.split;
  if (split.empty()) return whole;
  VT_REQUIRE(ConfigError,
             split.size() == 2 && split[0] >= 0 && split[0] < split[1] && split[1] <= 1,
             "[data] source '{}': split must be [start, end] with 0 <= start < end <= 1",
             source_name(source));
  const auto size = static_cast<double>(whole->size());
  const int64_t first = std::llround(split[0] * size), last = std::llround(split[1] * size);
  VT_REQUIRE(DataError, first < last, "[data] {}: split [{}, {}] of {} samples is empty",
             source.root, split[0], split[1], whole->size());
  return std::make_unique<SplitReader>(std::move(whole), model.in_channels, first, last - first);
}

}  // namespace

Shape Reader::shape(int64_t i) const {
  const Pixels pixels = decode(i);
  return {pixels.sides, pixels.channels};
}

Sample Reader::read(int64_t i) const {
  const SampleInfo info = describe(i);
  Sample sample;
  sample.image = to_tensor(to_channels(decode(i), channels_, info.path));
  sample.label = info.label;
  sample.index = i;
  return sample;
}

std::string source_name(const config::Source& source) {
  return source.name.empty() ? source.reader.value : source.name;
}

std::unique_ptr<Reader> open_reader(const config::Source& source, const config::Model& model) {
  const auto entry = registry().find(source.reader.value);
  VT_REQUIRE(ConfigError, entry != registry().end(), "[data] source '{}': reader '{}' is not known",
             source_name(source), source.reader.value);
  return take_split(entry->second(source, model), source, model);
}

}  // namespace vitrail::data
