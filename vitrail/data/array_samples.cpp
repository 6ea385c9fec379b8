#include "vitrail/data/array_samples.h"

#include <algorithm>
#include <utility>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/data/array_reader.h"

namespace vitrail::data {
namespace {

// Open files of one list. An .npz may hold its unpacked values.
constexpr size_t kMaxOpen = 64, kMaxOpenPacked = 4;

size_t max_open(const ArrayPlace& place, const std::vector<std::string>& paths) {
  const bool is_packed =
      place.format == "npy" && std::any_of(paths.begin(), paths.end(), [](const std::string& path) {
        return path.ends_with(".npz");
      });
  return is_packed ? kMaxOpenPacked : kMaxOpen;
}

}  // namespace

OpenArrays::OpenArrays(std::string format, std::string array, const config::Source& source,
                       size_t max_open)
    : format_(std::move(format)), array_(std::move(array)), source_(source), max_open_(max_open) {}

std::shared_ptr<OpenArrays::Entry> OpenArrays::entry_of(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(path); found != entries_.end()) {
    uses_.splice(uses_.begin(), uses_, found->second->use);
    return found->second;
  }
  if (entries_.size() >= max_open_) {
    entries_.erase(uses_.back());
    uses_.pop_back();
  }
  auto entry = std::make_shared<Entry>();
  uses_.push_front(path);
  entry->use = uses_.begin();
  return entries_[path] = entry;
}

std::shared_ptr<const io::ArrayFile> OpenArrays::get(const std::string& path) const {
  const std::shared_ptr<Entry> entry = entry_of(path);
  std::call_once(entry->once,
                 [&] { entry->file = open_array_file(format_, path, array_, source_); });
  return entry->file;
}

std::vector<int64_t> ArraySample::sides() const {
  std::vector<int64_t> sides;
  for (const int64_t axis : axes.sides)
    sides.push_back(axis < 0 ? 1 : file->shape()[static_cast<size_t>(axis)]);
  return sides;
}

int64_t ArraySample::channels() const {
  return axes.channels < 0 ? 1 : file->shape()[static_cast<size_t>(axes.channels)];
}

ArraySamples::ArraySamples(std::vector<std::string> paths, ArrayPlace place,
                           const config::Source& source)
    : paths_(std::move(paths)),
      place_(std::move(place)),
      files_(place_.format, place_.array, source, max_open(place_, paths_)),
      first_{0} {
  for (size_t i = 0; i < paths_.size(); ++i) {
    int64_t samples = 1;
    if (i == 0 || has_samples_) {
      const std::shared_ptr<const io::ArrayFile> file = files_.get(paths_[i]);
      const ArrayAxes axes = find_axes(*file, place_.rule, paths_[i]);
      VT_REQUIRE(DataError, i == 0 || axes.samples >= 0,
                 "[data] {}: must have an axis of samples like {}; set axes", paths_[i], paths_[0]);
      has_samples_ = axes.samples >= 0;
      if (has_samples_) samples = file->shape()[static_cast<size_t>(axes.samples)];
    }
    first_.push_back(core::checked_add(first_.back(), samples, "the number of samples"));
  }
}

int64_t ArraySamples::file_of(int64_t i) const {
  VT_CHECK(i >= 0 && i < size(), "[data] sample must lie in [0, {}) but is {}", size(), i);
  return std::upper_bound(first_.begin(), first_.end(), i) - first_.begin() - 1;
}

std::string ArraySamples::path(int64_t i) const {
  const auto file = static_cast<size_t>(file_of(i));
  return has_samples_ ? fmt::format("{}#{}", paths_[file], i - first_[file]) : paths_[file];
}

ArraySample ArraySamples::at(int64_t i) const {
  const auto k = static_cast<size_t>(file_of(i));
  ArraySample sample{files_.get(paths_[k]), {}, i - first_[k], path(i)};
  sample.axes = find_axes(*sample.file, place_.rule, paths_[k]);
  VT_REQUIRE(DataError, (sample.axes.samples >= 0) == has_samples_,
             "[data] {}: must have the axes of {}; set axes", paths_[k], paths_[0]);
  return sample;
}

}  // namespace vitrail::data
