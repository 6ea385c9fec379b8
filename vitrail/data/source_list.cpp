#include "vitrail/data/source_list.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/permutation.h"
#include "vitrail/core/philox.h"

namespace vitrail::data {

SourceList::SourceList(const std::vector<config::Source>& sources, const config::Model& model,
                       uint64_t seed, bool training, bool raw, int64_t cache_bytes)
    : has_masks_(segments(model)), cache_(cache_bytes), seed_(seed) {
  VT_REQUIRE(ConfigError, !sources.empty(),
             "[data] at least one source is needed; set data.sources");
  variables_ = sources.front().variables;
  for (const config::Source& source : sources) {
    VT_REQUIRE(
        ConfigError, source.variables == variables_,
        "[data] source '{}': its variables [{}] must be those of the sources before it [{}], "
        "since a batch mixes all of them",
        source_name(source), fmt::join(source.variables, ", "), fmt::join(variables_, ", "));
    add(source, model, training, raw);
  }
}

void SourceList::add(const config::Source& source, const config::Model& model, bool training,
                     bool raw) {
  Transform transform(source, model, training, raw);
  std::unique_ptr<Reader> reader = open_reader(source, model);
  VT_REQUIRE(
      ConfigError, !has_masks_ || reader->has_masks(),
      "[data] source '{}': model.kind {} learns from masks but the source has none; set labels",
      source_name(source), model.kind.value);
  Windows windows(source, model, *reader, training);
  int64_t size = windows.size();
  const bool is_cached = reader->is_costly() || !windows.is_whole();
  if (training && source.weight != 1.0) {
    VT_REQUIRE(ConfigError,
               std::isfinite(source.weight) && source.weight >= 0 && source.weight <= 1e6,
               "[data] source '{}': weight must lie in [0, 1e6] but is {}", source_name(source),
               source.weight);
    size = std::llround(source.weight * static_cast<double>(size));
  }
  entries_.push_back(
      {std::move(reader), std::move(windows), std::move(transform), is_cached, size_, size});
  const auto axes = static_cast<int64_t>(model.image_size.size()) + (source.slices ? 1 : 0);
  file_axes_ = std::max(file_axes_, axes);
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
  const int64_t place = index - entry.first, size = entry.windows.size();
  if (entry.size == size) return {&entry, source, place};
  const core::Philox4 bits =
      core::draw4({seed_, core::Stream::order, 0, /*layer=*/1}, static_cast<uint64_t>(source), 0);
  const uint64_t key = static_cast<uint64_t>(bits.x[0]) << 32 | bits.x[1];
  const int64_t dealt = (epoch % size * (entry.size % size) + place) % size;
  const core::KeyedPermutation permutation(static_cast<uint64_t>(size), key);
  return {&entry, source, static_cast<int64_t>(permutation(static_cast<uint64_t>(dealt)))};
}

SampleInfo SourceList::describe(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  return item.entry->reader->describe(item.entry->windows.item_of(item.i));
}

Window SourceList::window(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  const Reader& reader = *item.entry->reader;
  const int64_t file = item.entry->windows.item_of(item.i);
  return item.entry->windows.at(item.i, {seed_, epoch, index}, reader.shape(file).sides,
                                reader.describe(file).path);
}

std::shared_ptr<const Decoded> SourceList::decoded(const Item& item, int64_t file,
                                                   const std::string& path) const {
  const Entry& entry = *item.entry;
  const auto decode = [&] {
    return entry.transform.prepare(entry.reader->decode(file),
                                   has_masks_ ? entry.reader->decode_mask(file) : Mask{}, path);
  };
  if (entry.is_cached) return cache_.get({item.source, file}, decode);
  return std::make_shared<const Decoded>(decode());
}

void SourceList::load(int64_t epoch, int64_t index, float* image, int64_t* label) const {
  const Item item = locate(epoch, index);
  const Entry& entry = *item.entry;
  const int64_t i = entry.windows.item_of(item.i);
  const SampleInfo info = entry.reader->describe(i);
  const std::shared_ptr<const Decoded> file = decoded(item, i, info.path);
  const AugmentPlace place{seed_, epoch, index};
  const Window window = entry.windows.at(item.i, place, file->image.sides, info.path);
  entry.transform.apply(*file, window, place, image, has_masks_ ? label : nullptr);
  if (!has_masks_) *label = info.label;
}

}  // namespace vitrail::data
