#include "vitrail/train/checkpoint_coverage.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "vitrail/core/error.h"
#include "vitrail/train/checkpoint_files.h"

namespace vitrail::train {

namespace {

using parallel::Box;

/// Product of the dimensions; throws when an element count or its bytes overflow.
int64_t checked_count(const std::vector<int64_t>& shape, core::DType dtype,
                      const std::string& where) {
  int64_t count = 1;
  for (const int64_t extent : shape) {
    const bool good = extent >= 0 && !__builtin_mul_overflow(count, extent, &count) &&
                      count <= kMaxTensorBytes / core::size_bytes(dtype);
    VT_REQUIRE(CheckpointError, good, "[checkpoint] {}: shape {} is negative or too large", where,
               shape_text(shape));
  }
  return count;
}

bool lies_in(const Box& box, const std::vector<int64_t>& shape) {
  if (box.start.size() != shape.size() || box.shape.size() != shape.size()) return false;
  for (size_t axis = 0; axis < shape.size(); ++axis)
    if (box.start[axis] < 0 || box.shape[axis] < 1 || box.shape[axis] > shape[axis] ||
        box.start[axis] > shape[axis] - box.shape[axis])
      return false;
  return true;
}

bool share_elements(const Box& a, const Box& b) {
  for (size_t axis = 0; axis < a.shape.size(); ++axis)
    if (a.start[axis] + a.shape[axis] <= b.start[axis] ||
        b.start[axis] + b.shape[axis] <= a.start[axis])
      return false;
  return true;
}

/// The axis along which boxes start at the most places: few neighbours there are left to compare.
size_t busiest_axis(const std::vector<Box>& boxes) {
  size_t best = 0, most = 0;
  for (size_t axis = 0; axis < boxes[0].shape.size(); ++axis) {
    std::set<int64_t> starts;
    for (const Box& box : boxes) starts.insert(box.start[axis]);
    if (starts.size() > most) most = starts.size(), best = axis;
  }
  return best;
}

/// Disjoint boxes inside the tensor whose volumes add up to its own fill it.
void check_boxes(const TensorEntry& entry, int64_t count, const std::string& where) {
  const std::vector<Box>& boxes = entry.boxes;
  VT_REQUIRE(CheckpointError, boxes.size() <= kMaxBoxes,
             "[checkpoint] {}: a tensor has at most {} boxes but this one {}", where, kMaxBoxes,
             boxes.size());
  int64_t held = 0;
  for (const Box& box : boxes) {
    VT_REQUIRE(CheckpointError, lies_in(box, entry.shape),
               "[checkpoint] {}: a box must lie in the tensor's shape {} but starts at {} with "
               "shape {}",
               where, shape_text(entry.shape), shape_text(box.start), shape_text(box.shape));
    const int64_t volume = box.count();
    VT_REQUIRE(CheckpointError, volume <= count - held,
               "[checkpoint] {}: boxes hold more than the tensor's {} elements (an overlap)", where,
               count);
    held += volume;
  }
  VT_REQUIRE(CheckpointError, held == count,
             "[checkpoint] {}: boxes hold {} of the tensor's {} elements (a hole)", where, held,
             count);
  if (boxes.size() < 2) return;
  VT_REQUIRE(CheckpointError, !entry.shape.empty(),
             "[checkpoint] {}: two boxes of a single value (an overlap)", where);
  const size_t axis = busiest_axis(boxes);
  std::vector<size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return boxes[a].start[axis] < boxes[b].start[axis]; });
  for (size_t i = 0; i < order.size(); ++i) {
    const Box& box = boxes[order[i]];
    for (size_t j = i + 1; j < order.size(); ++j) {
      const Box& other = boxes[order[j]];
      if (other.start[axis] >= box.start[axis] + box.shape[axis]) break;
      VT_REQUIRE(CheckpointError, !share_elements(box, other),
                 "[checkpoint] {}: the boxes at {} and {} share elements (an overlap)", where,
                 shape_text(box.start), shape_text(other.start));
    }
  }
}

void check_blocks(const Region& region, const std::string& where) {
  const auto blocks =
      static_cast<size_t>(std::max<int64_t>(1, (region.bytes + kBlockBytes - 1) / kBlockBytes));
  VT_REQUIRE(CheckpointError, region.crc32c.size() == 1 || region.crc32c.size() == blocks,
             "[checkpoint] {}: a region of {} bytes must have {} checksums but has {}", where,
             region.bytes, blocks, region.crc32c.size());
}

}  // namespace

std::string printable(std::string name) {
  name.resize(std::min(name.size(), size_t{200}));
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return name;
}

bool has_control_characters(const std::string& name) {
  return std::any_of(name.begin(), name.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' && name != kManifestName &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         !has_control_characters(name);
}

void check_regions(const TensorEntry& entry, const Manifest& manifest, const std::string& where) {
  const int64_t count = checked_count(entry.shape, entry.dtype, where);
  const int64_t width = core::size_bytes(entry.dtype);
  if (count > 0) check_boxes(entry, count, where);
  const auto boxes = static_cast<int64_t>(count > 0 ? entry.boxes.size() : 0);
  int64_t box = 0, next = 0, total = 0;
  for (const Region& region : entry.regions) {
    if (box < boxes && next == entry.boxes[static_cast<size_t>(box)].count()) ++box, next = 0;
    VT_REQUIRE(CheckpointError, box < boxes,
               "[checkpoint] {}: a region ends past the tensor's {} elements", where, count);
    VT_REQUIRE(
        CheckpointError, region.box == box && region.start == next,
        "[checkpoint] {}: regions must follow one another but one starts at element {} of "
        "box {} where element {} of box {} was expected ({})",
        where, region.start, region.box, next, box,
        region.box > box || (region.box == box && region.start > next) ? "a hole" : "an overlap");
    VT_REQUIRE(
        CheckpointError,
        region.count >= 1 && region.count <= entry.boxes[static_cast<size_t>(box)].count() - next,
        "[checkpoint] {}: a region ends past the tensor's {} elements", where, count);
    VT_REQUIRE(CheckpointError, region.bytes == region.count * width,
               "[checkpoint] {}: a region of {} elements of {} must have {} bytes but got {}",
               where, region.count, core::name(entry.dtype), region.count * width, region.bytes);
    VT_REQUIRE(CheckpointError, manifest.files.contains(region.file),
               "[checkpoint] {}: unknown file '{}'", where, printable(region.file));
    check_blocks(region, where);
    next += region.count;
    total += region.count;
  }
  VT_REQUIRE(CheckpointError, total == count,
             "[checkpoint] {}: regions hold {} of the tensor's {} elements", where, total, count);
}

void check_files(const Manifest& manifest, const std::string& where) {
  std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> spans;
  for (const auto& [name, entry] : manifest.tensors)
    for (const Region& region : entry.regions)
      spans[region.file].emplace_back(region.offset, region.offset + region.bytes);
  for (const auto& [name, file] : manifest.files) {
    VT_REQUIRE(CheckpointError, is_plain_file_name(name),
               "[checkpoint] {}: '{}' is not a plain file name", where, printable(name));
    auto& ranges = spans[name];
    std::sort(ranges.begin(), ranges.end());
    int64_t next = file.header_bytes;
    for (const auto& [begin, end] : ranges) {
      VT_REQUIRE(CheckpointError, begin == next,
                 "[checkpoint] {}: in file {} bytes must follow one another but a region starts at "
                 "{} where {} was "
                 "expected",
                 where, name, begin, next);
      next = end;
    }
    VT_REQUIRE(CheckpointError, next == file.bytes,
               "[checkpoint] {}: file {} has {} bytes but its regions end at {}", where, name,
               file.bytes, next);
  }
}

}  // namespace vitrail::train
