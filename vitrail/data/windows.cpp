#include "vitrail/data/windows.h"

#include <algorithm>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"

namespace vitrail::data {
namespace {

// Beyond every position in an augment list, so that the place of a window and the step crop:PAD
// never share a draw.
constexpr uint16_t kWindowLayer = 0x8000;

std::vector<double> overlap_of(const config::Source& source) {
  return source.overlap.empty() ? std::vector<double>(source.tile.size(), 0.0) : source.overlap;
}

}  // namespace

std::vector<int64_t> Window::sample_sides() const {
  std::vector<int64_t> result = sides;
  if (slice_axis >= 0) result.erase(result.begin() + slice_axis);
  return result;
}

Window whole_window(int64_t item, const std::vector<int64_t>& sides) {
  return {item, std::vector<int64_t>(sides.size(), 0), sides, sides, -1};
}

std::vector<int64_t> tile_starts(int64_t size, int64_t tile, double overlap, bool use_all) {
  const int64_t stride =
      std::max<int64_t>(1, std::llround(static_cast<double>(tile) * (1.0 - overlap)));
  std::vector<int64_t> starts{0};
  while (starts.back() + stride + tile <= size) starts.push_back(starts.back() + stride);
  if (use_all && starts.back() + tile < size) starts.push_back(size - tile);
  return starts;
}

CropStarts::CropStarts(int64_t low, int64_t high, int64_t crop, int64_t chunk)
    : low_(low), last_(std::max(low, high - crop)), step_(1), first_chunk_(low + 1) {
  if (chunk > 1 && crop % chunk == 0) {
    step_ = chunk;
    first_chunk_ = (low / chunk + 1) * chunk;
  }
  // Between the two ends lie the starts first_chunk_, first_chunk_ + step_, ... < last_.
  const int64_t between = first_chunk_ < last_ ? (last_ - first_chunk_ + step_ - 1) / step_ : 0;
  size_ = last_ == low_ ? 1 : between + 2;
}

int64_t CropStarts::operator[](int64_t i) const {
  if (i == 0) return low_;
  return i == size_ - 1 ? last_ : first_chunk_ + (i - 1) * step_;
}

Windows::Windows(const config::Source& source, const config::Model& model, const Reader& reader,
                 bool training)
    : region_(source.region),
      slice_axis_(source.slices.value_or(-1)),
      tile_(source.tile),
      overlap_(overlap_of(source)),
      use_all_(source.use_all_data),
      aligns_(source.random_crop.align),
      axes_(model.image_size.size() + (source.slices ? 1 : 0)) {
  check(source, model);
  if (training && source.random_crop.per_epoch > 0) {
    crop_ = source.random_crop.size.empty() ? model.image_size : source.random_crop.size;
    per_epoch_ = source.random_crop.per_epoch;
    tile_.clear();
  }
  is_whole_ = region_.empty() && slice_axis_ < 0 && tile_.empty() && crop_.empty();
  const int64_t files = reader.size();
  size_ = files * per_epoch_;
  if (slice_axis_ < 0 && tile_.empty()) return;
  size_ = 0;
  for (int64_t item = 0; item < files; ++item) {
    first_.push_back(size_);
    const Box box = box_of(reader.shape(item).sides, reader.describe(item).path);
    size_ += slices_in(box) * tiles_in(box) * per_epoch_;
  }
}

void Windows::check(const config::Source& source, const config::Model& model) const {
  const std::string name = source_name(source);
  const size_t sides = model.image_size.size();
  VT_REQUIRE(
      ConfigError, !source.slices || (sides == 2 && slice_axis_ >= 0 && slice_axis_ <= 2),
      "[data] source '{}': slices must be an axis 0, 1 or 2 of volumes for a model.image_size "
      "of 2 sides but got axis {} for {} sides",
      name, slice_axis_, sides);
  bool is_region = region_.empty() || region_.size() == 2 * axes_;
  for (size_t i = 0; i + 1 < region_.size() && is_region; i += 2)
    is_region = region_[i] >= 0 && region_[i] < region_[i + 1] && region_[i + 1] <= 1;
  VT_REQUIRE(
      ConfigError, is_region,
      "[data] source '{}': region must hold start and end for each of the {} axes of a file, "
      "with 0 <= start < end <= 1",
      name, axes_);
  const auto check_size = [&](const std::vector<int64_t>& size, const char* key) {
    const bool fits = size.empty() ||
                      (size.size() == sides && std::all_of(size.begin(), size.end(),
                                                           [](int64_t side) { return side > 0; }));
    VT_REQUIRE(ConfigError, fits,
               "[data] source '{}': {} must have {} sides above zero like model.image_size", name,
               key, sides);
  };
  check_size(source.tile, "tile");
  check_size(source.random_crop.size, "random_crop.size");
  VT_REQUIRE(ConfigError,
             source.random_crop.per_epoch >= 0 && source.random_crop.per_epoch <= (1 << 20),
             "[data] source '{}': random_crop.per_epoch must lie in [0, 2^20] but is {}", name,
             source.random_crop.per_epoch);
  const bool is_overlap = overlap_.size() == tile_.size() &&
                          std::all_of(overlap_.begin(), overlap_.end(),
                                      [](double ratio) { return ratio >= 0 && ratio < 1; });
  VT_REQUIRE(ConfigError, is_overlap,
             "[data] source '{}': overlap must have one ratio in [0, 1) per side of tile", name);
}

Windows::Box Windows::box_of(const std::vector<int64_t>& sides, const std::string& path) const {
  VT_REQUIRE(DataError, sides.size() == axes_,
             "[data] {}: expected {} sides like model.image_size{} but the file has {}", path,
             axes_, slice_axis_ < 0 ? "" : " and slices", describe(sides));
  Box box{std::vector<int64_t>(axes_, 0), sides};
  for (size_t axis = 0; axis < axes_ && !region_.empty(); ++axis) {
    const auto side = static_cast<double>(sides[axis]);
    box.low[axis] = std::llround(region_[2 * axis] * side);
    box.high[axis] = std::llround(region_[2 * axis + 1] * side);
    VT_REQUIRE(DataError, box.low[axis] < box.high[axis],
               "[data] {}: region [{}, {}] of the {} pixels along axis {} is empty", path,
               region_[2 * axis], region_[2 * axis + 1], sides[axis], axis);
  }
  return box;
}

int64_t Windows::slices_in(const Box& box) const {
  if (slice_axis_ < 0) return 1;
  const auto axis = static_cast<size_t>(slice_axis_);
  return box.high[axis] - box.low[axis];
}

int64_t Windows::tiles_in(const Box& box) const {
  int64_t tiles = 1;
  for (size_t axis = 0, k = 0; axis < axes_ && !tile_.empty(); ++axis) {
    if (is_sliced(axis)) continue;
    const int64_t size = box.high[axis] - box.low[axis];
    tiles *= static_cast<int64_t>(tile_starts(size, tile_[k], overlap_[k], use_all_).size());
    ++k;
  }
  return tiles;
}

int64_t Windows::item_of(int64_t i) const {
  if (first_.empty()) return i / per_epoch_;
  return std::upper_bound(first_.begin(), first_.end(), i) - first_.begin() - 1;
}

int64_t Windows::first_of(int64_t item) const {
  if (first_.empty()) return item * per_epoch_;
  return item < static_cast<int64_t>(first_.size()) ? first_[static_cast<size_t>(item)] : size_;
}

Window Windows::at(int64_t i, const AugmentPlace& place, const std::vector<int64_t>& sides,
                   const std::string& path, const std::vector<int64_t>& chunk) const {
  const Box box = box_of(sides, path);
  const int64_t item = item_of(i);
  Window window{item, box.low, {}, {}, slice_axis_};
  for (size_t axis = 0; axis < axes_; ++axis)
    window.sides.push_back(box.high[axis] - box.low[axis]);
  window.extent = window.sides;
  const int64_t first = first_of(item);
  const int64_t tiles = tiles_in(box), per_slice = tiles * per_epoch_;
  if (slice_axis_ >= 0) {
    const auto axis = static_cast<size_t>(slice_axis_);
    VT_REQUIRE(DataError, (i - first) / per_slice < slices_in(box),
               "[data] {}: has fewer slices than its header said", path);
    window.origin[axis] += (i - first) / per_slice;
    window.sides[axis] = window.extent[axis] = 1;
  }
  if (!tile_.empty()) place_tile((i - first) % tiles, box, window);
  if (!crop_.empty()) place_crop(place, box, chunk, window);
  return window;
}

void Windows::place_tile(int64_t k, const Box& box, Window& window) const {
  size_t side = tile_.size();
  for (size_t axis = axes_; axis-- > 0;) {
    if (is_sliced(axis)) continue;
    --side;
    const int64_t size = box.high[axis] - box.low[axis];
    const std::vector<int64_t> starts = tile_starts(size, tile_[side], overlap_[side], use_all_);
    const auto n = static_cast<int64_t>(starts.size());
    window.origin[axis] = box.low[axis] + starts[static_cast<size_t>(k % n)];
    window.sides[axis] = tile_[side];
    window.extent[axis] = std::min(tile_[side], size);
    k /= n;
  }
}

void Windows::place_crop(const AugmentPlace& place, const Box& box,
                         const std::vector<int64_t>& chunk, Window& window) const {
  const core::DrawKey key{place.seed, core::Stream::crop, static_cast<uint32_t>(place.epoch),
                          kWindowLayer};
  size_t side = 0;
  for (size_t axis = 0; axis < axes_; ++axis) {
    if (is_sliced(axis)) continue;
    const int64_t size = box.high[axis] - box.low[axis];
    const CropStarts starts(box.low[axis], box.high[axis], crop_[side],
                            aligns_ && chunk.size() == axes_ ? chunk[axis] : 1);
    const uint64_t bits =
        core::draw(key, static_cast<uint64_t>(place.index), static_cast<uint32_t>(side));
    window.origin[axis] =
        starts[static_cast<int64_t>((bits * static_cast<uint64_t>(starts.size())) >> 32)];
    window.sides[axis] = crop_[side];
    window.extent[axis] = std::min(crop_[side], size);
    ++side;
  }
}

}  // namespace vitrail::data
