#include "vitrail/data/source_list.h"

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/core/permutation.h"
#include "vitrail/core/philox.h"

namespace vitrail::data {

SourceList::SourceList(const std::vector<config::Source>& sources, const config::Model& model,
                       uint64_t seed, bool training, bool raw)
    : seed_(seed) {
  VT_REQUIRE(ConfigError, !sources.empty(),
             "[data] at least one source is needed; set data.sources");
  for (const config::Source& source : sources) add(source, model, training, raw);
}

void SourceList::add(const config::Source& source, const config::Model& model, bool training,
                     bool raw) {
  Transform transform(source, model, training, raw);
  std::unique_ptr<Reader> reader = open_reader(source, model);
  int64_t size = reader->size();
  if (training && source.weight != 1.0) {
    VT_REQUIRE(ConfigError,
               std::isfinite(source.weight) && source.weight >= 0 && source.weight <= 1e6,
               "[data] source '{}': weight must lie in [0, 1e6] but is {}", source_name(source),
               source.weight);
    size = std::llround(source.weight * static_cast<double>(size));
  }
  entries_.push_back({std::move(reader), std::move(transform), size_, size});
  size_ += size;
  check_classes(source, model);
}

void SourceList::check_classes(const config::Source& source, const config::Model& model) {
  const std::vector<std::string> names = entries_.back().reader->class_names();
  if (names.empty()) return;
  const bool is_classifier = model.kind == "vit" && model.num_classes > 0;
  VT_REQUIRE(DataError, !is_classifier || static_cast<int64_t>(names.size()) <= model.num_classes,
             "[data] {}: has {} classes but model.num_classes is {}", source.root, names.size(),
             model.num_classes);
  VT_REQUIRE(DataError, !is_classifier || class_names_.empty() || class_names_ == names,
             "[data] {}: its classes differ from those of the sources before it; every source of a "
             "classifier needs "
             "the same class folders",
             source.root);
  if (class_names_.empty()) class_names_ = names;
}

int64_t SourceList::source_of(int64_t index) const {
  VT_CHECK(index >= 0 && index < size_, "[data] sample index must lie in [0, {}) but is {}", size_,
           index);
  const auto after =
      std::upper_bound(entries_.begin(), entries_.end(), index,
                       [](int64_t value, const Entry& entry) { return value < entry.first; });
  return after - entries_.begin() - 1;
}

SourceList::Item SourceList::locate(int64_t epoch, int64_t index) const {
  const int64_t source = source_of(index);
  const Entry& entry = entries_[static_cast<size_t>(source)];
  const int64_t place = index - entry.first, size = entry.reader->size();
  if (entry.size == size) return {&entry, place};
  const core::Philox4 bits =
      core::draw4({seed_, core::Stream::order, 0, /*layer=*/1}, static_cast<uint64_t>(source), 0);
  const uint64_t key = static_cast<uint64_t>(bits.x[0]) << 32 | bits.x[1];
  const int64_t dealt = (epoch % size * (entry.size % size) + place) % size;
  const core::KeyedPermutation permutation(static_cast<uint64_t>(size), key);
  return {&entry, static_cast<int64_t>(permutation(static_cast<uint64_t>(dealt)))};
}

SampleInfo SourceList::describe(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  return item.entry->reader->describe(item.i);
}

int64_t SourceList::load(int64_t epoch, int64_t index, float* out) const {
  const Item item = locate(epoch, index);
  const SampleInfo info = item.entry->reader->describe(item.i);
  item.entry->transform.apply(item.entry->reader->decode(item.i), {seed_, epoch, index}, info.path,
                              out);
  return info.label;
}

}  // namespace vitrail::data
