#include "vitrail/data/source_list.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "vitrail/config/augment_steps.h"
#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/core/permutation.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/leaves.h"

namespace vitrail::data {

namespace {

LabelKind label_kind_of(const config::Model& model) {
  if (segments(model)) return LabelKind::masks;
  if (!regresses(model)) return LabelKind::classes;
  return model.kind == "vit" ? LabelKind::values : LabelKind::images;
}

}  // namespace

SourceList::SourceList(const std::vector<config::Source>& sources, const config::Model& model,
                       uint64_t seed, bool training, bool raw, int64_t cache_bytes,
                       bool mixes_samples)
    : label_kind_(label_kind_of(model)),
      values_(regresses(model) ? model.num_classes : 0),
      cache_(cache_bytes),
      seed_(seed) {
  VT_REQUIRE(ConfigError, !sources.empty(),
             "[data] at least one source is needed; set data.sources");
  for (const config::Source& source : sources) {
    VT_REQUIRE(
        ConfigError, !mixes_samples || source.variables == sources.front().variables,
        "[data] source '{}': its variables [{}] must be those of the sources before it [{}], "
        "since a batch mixes all of them; set data.mixing to batch or rank",
        source_name(source), fmt::join(source.variables, ", "),
        fmt::join(sources.front().variables, ", "));
    add(source, model, training, raw);
  }
  agree_on_staging();
}

void SourceList::check_labels(const config::Source& source, const config::Model& model,
                              const Reader& reader) const {
  VT_REQUIRE(
      ConfigError, label_kind_ != LabelKind::masks || reader.has_masks(),
      "[data] source '{}': model.kind {} learns from masks but the source has none; set labels",
      source_name(source), model.kind.value);
  VT_REQUIRE(
      ConfigError, label_kind_ != LabelKind::images || reader.has_value_images(),
      "[data] source '{}': model.kind {} with model.loss mse learns images of values but the "
      "source has none; set labels",
      source_name(source), model.kind.value);
  VT_REQUIRE(
      ConfigError,
      label_kind_ != LabelKind::values || reader.size() == 0 || !reader.describe(0).values.empty(),
      "[data] source '{}': model.kind {} with model.loss mse learns numbers but the source "
      "has none; use a reader that gives some (image_list)",
      source_name(source), model.kind.value);
}

void SourceList::add(const config::Source& source, const config::Model& model, bool training,
                     bool raw) {
  Transform transform(source, model, training, raw);
  std::unique_ptr<Reader> reader = open_reader(source, model);
  check_labels(source, model, *reader);
  Windows windows(source, model, *reader, training);
  int64_t size = windows.size();
  const bool needs_whole_file = RangeRule(source).needs_whole_file();
  const bool reads_boxes =
      reader->reads_boxes() && !needs_whole_file && !(windows.is_whole() && reader->is_costly());
  const bool is_cached = !reads_boxes && (reader->is_costly() || !windows.is_whole());
  if (training && source.weight != 1.0) {
    VT_REQUIRE(ConfigError,
               std::isfinite(source.weight) && source.weight >= 0 && source.weight <= 1e6,
               "[data] source '{}': weight must lie in [0, 1e6] but is {}", source_name(source),
               source.weight);
    size = std::llround(source.weight * static_cast<double>(size));
  }
  VT_REQUIRE(
      ConfigError, !training || reader->max_boxes() == 0 || !config::mixes_pairs(source.augment),
      "[data] source '{}': mixup and cutmix are for samples without boxes; leave them out of "
      "augment",
      source_name(source));
  max_boxes_ = std::max(max_boxes_, reader->max_boxes());
  entries_.push_back({source_name(source), source.variables, std::move(reader), std::move(windows),
                      std::move(transform), pixel_range_of(source, model, raw), is_cached, reads_boxes,
                      size_, size});
  const auto axes = static_cast<int64_t>(model.image_size.size()) + (source.slices ? 1 : 0);
  file_axes_ = std::max(file_axes_, axes);
  size_ += size;
  check_classes(source, model);
}

/// A batch has one shape, whichever source its samples are of.
void SourceList::agree_on_staging() {
  int64_t slots = 0;
  bool wants_plan = false;
  for (const Entry& entry : entries_) {
    wants_plan = wants_plan || entry.transform.wants_plan();
    slots = std::max(slots, entry.transform.plan_slots());
  }
  for (Entry& entry : entries_) {
    if (wants_plan) entry.transform.use_plan(slots);
    const std::vector<int64_t> sides = entry.transform.staging_sides();
    staging_.resize(sides.size(), 0);
    for (size_t axis = 0; axis < sides.size(); ++axis)
      staging_[axis] = std::max(staging_[axis], sides[axis]);
  }
}

int64_t SourceList::plan_bytes(int64_t source) const {
  const Transform& transform = entry(source).transform;
  return transform.has_plan() ? transform.plan_bytes() : -1;
}

std::vector<int64_t> SourceList::sizes() const {
  std::vector<int64_t> sizes;
  for (const Entry& entry : entries_) sizes.push_back(entry.size);
  return sizes;
}

void SourceList::check_classes(const config::Source& source, const config::Model& model) {
  const std::vector<std::string> names = entries_.back().reader->class_names();
  if (names.empty()) return;
  const bool is_classifier = classifies(model);
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

DecodedCache::Key SourceList::file_of(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  return {item.source, item.entry->windows.item_of(item.i)};
}

SourceList::Grid SourceList::grid(const Item& item, int64_t file) const {
  constexpr size_t kMostKept = 100'000;
  const DecodedCache::Key key{item.source, file};
  {
    const std::lock_guard lock(grids_mutex_);
    if (const auto found = grids_.find(key); found != grids_.end()) return found->second;
  }
  const Grid grid{item.entry->reader->shape(file).sides, item.entry->reader->chunk_sides(file)};
  const std::lock_guard lock(grids_mutex_);
  if (grids_.size() >= kMostKept) grids_.clear();
  grids_.emplace(key, grid);
  return grid;
}

Window SourceList::window(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  const Reader& reader = *item.entry->reader;
  const int64_t file = item.entry->windows.item_of(item.i);
  const AugmentPlace place{seed_, epoch, index};
  const std::string path = reader.describe(file).path;
  if (!item.entry->reads_boxes)
    return item.entry->windows.at(item.i, place, reader.shape(file).sides, path);
  const Grid found = grid(item, file);
  return item.entry->windows.at(item.i, place, found.sides, path, found.chunk);
}

Decoded SourceList::decode(const Entry& entry, int64_t file, const std::string& path) const {
  const Reader& reader = *entry.reader;
  Decoded decoded = entry.transform.prepare(
      reader.decode(file), label_kind_ == LabelKind::masks ? reader.decode_mask(file) : Mask{},
      path);
  if (label_kind_ == LabelKind::images) decoded.values = reader.decode_values(file);
  return decoded;
}

Decoded SourceList::decode(const Entry& entry, int64_t file, const std::string& path,
                           const Box& box) const {
  const Reader& reader = *entry.reader;
  Decoded decoded = entry.transform.prepare(
      reader.decode_box(file, box),
      label_kind_ == LabelKind::masks ? reader.decode_mask_box(file, box) : Mask{}, path);
  if (label_kind_ == LabelKind::images) decoded.values = reader.decode_values_box(file, box);
  return decoded;
}

/// A file of a format for large data, read whole only because of source.normalize.
void SourceList::check_fits(const Item& item, int64_t file, const std::string& path) const {
  constexpr double kGiB = 1 << 30;
  const Reader& reader = *item.entry->reader;
  if (!item.entry->is_cached || !reader.reads_boxes()) return;
  const Shape shape = reader.shape(file);
  const int64_t values =
      core::checked_mul(core::checked_product(shape.sides, "the pixels of a file"), shape.channels,
                        "the values of a file");
  const double gib = 4 * static_cast<double>(values) / kGiB;
  VT_REQUIRE(DataError, gib <= std::max(static_cast<double>(cache_.max_bytes()) / kGiB, 1.0),
             "[data] {}: normalize by the range of the file needs all of it in memory, {:.1f} GiB, "
             "which is more than data.cache_gib; set statistics (vitrail data inspect "
             "--statistics), or normalize unit or none",
             path, gib);
}

void SourceList::read_whole(const Item& item, ReadSample& sample) const {
  const Entry& entry = *item.entry;
  const int64_t file = entry.windows.item_of(item.i);
  check_fits(item, file, sample.info.path);
  const auto decode_it = [&] { return decode(entry, file, sample.info.path); };
  if (entry.is_cached)
    sample.file = cache_.get({item.source, file}, decode_it);
  else
    sample.file = std::make_shared<const Decoded>(decode_it());
  sample.window = entry.transform.narrow(
      entry.windows.at(item.i, sample.place, sample.file->image.sides, sample.info.path),
      sample.place);
}

void SourceList::read_box(const Item& item, ReadSample& sample) const {
  const Entry& entry = *item.entry;
  const int64_t file = entry.windows.item_of(item.i);
  const Grid found = grid(item, file);
  sample.window = entry.transform.narrow(
      entry.windows.at(item.i, sample.place, found.sides, sample.info.path, found.chunk),
      sample.place);
  const Box box{sample.window.origin, sample.window.extent};
  sample.file = std::make_shared<const Decoded>(box.sides == found.sides
                                                    ? decode(entry, file, sample.info.path)
                                                    : decode(entry, file, sample.info.path, box));
  // From here on the box is the file.
  std::fill(sample.window.origin.begin(), sample.window.origin.end(), 0);
  const size_t last = box.origin.size() - 1;
  for (LabelledBox& object : sample.boxes) {
    object.x0 -= static_cast<float>(box.origin[last]);
    object.x1 -= static_cast<float>(box.origin[last]);
    object.y0 -= static_cast<float>(box.origin[last - 1]);
    object.y1 -= static_cast<float>(box.origin[last - 1]);
  }
}

ReadSample SourceList::read(int64_t epoch, int64_t index) const {
  const Item item = locate(epoch, index);
  const Reader& reader = *item.entry->reader;
  const int64_t file = item.entry->windows.item_of(item.i);
  ReadSample sample;
  sample.index = index;
  sample.source = item.source;
  sample.place = {seed_, epoch, index};
  sample.info = reader.describe(file);
  if (max_boxes_ > 0) sample.boxes = reader.boxes(file);
  if (item.entry->reads_boxes)
    read_box(item, sample);
  else
    read_whole(item, sample);
  const auto n = static_cast<int64_t>(sample.info.values.size());
  VT_REQUIRE(DataError, label_kind_ != LabelKind::values || n == values_,
             "[data] {}: must have model.num_classes = {} numbers to be learnt but has {}",
             sample.info.path, values_, n);
  const Pixels& image = sample.file->values;
  VT_REQUIRE(DataError, label_kind_ != LabelKind::images || image.channels == values_,
             "[data] {}: must have model.num_classes = {} values a pixel to be learnt but has {}",
             sample.info.path, values_, image.channels);
  return sample;
}

void SourceList::place(const ReadSample& sample, const Placed& out, int64_t* label,
                       float* numbers) const {
  const Beside beside{label_kind_ == LabelKind::images ? &sample.file->values : nullptr,
                      max_boxes_ > 0 ? &sample.boxes : nullptr};
  entry(sample.source).transform.apply(*sample.file, beside, sample.window, sample.place, out);
  if (label != nullptr) *label = sample.info.label;
  if (numbers != nullptr) std::copy(sample.info.values.begin(), sample.info.values.end(), numbers);
}

void SourceList::load(int64_t epoch, int64_t index, float* image, int64_t* label) const {
  const bool is_mask = label_kind_ == LabelKind::masks;
  Placed out;
  out.image = image;
  if (is_mask) out.mask = label;
  place(read(epoch, index), out, is_mask ? nullptr : label, nullptr);
}

void SourceList::give_up(int64_t epoch, int64_t index, std::exception_ptr error) const {
  if (reads_whole(index)) cache_.give_up(file_of(epoch, index), std::move(error));
}

}  // namespace vitrail::data
