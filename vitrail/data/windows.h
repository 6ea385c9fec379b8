#pragma once
/// Which parts of a source's files are its samples: whole files, slices, tiles, windows at random
/// places.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/augment.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

/// A box of a file. All vectors have one entry per axis of the file.
struct Window {
  int64_t item = 0;             // in the reader's list
  std::vector<int64_t> origin;  // first pixel
  std::vector<int64_t> sides;   // of the sample; 1 along a slice's axis
  std::vector<int64_t> extent;  // pixels that are read; those from extent to sides are padding
  int64_t slice_axis = -1;      // axis that the sample lacks; -1 = none

  /// The sample's own sides: all but the slice's axis.
  std::vector<int64_t> sample_sides() const;
};

/// The whole of a file.
Window whole_window(int64_t item, const std::vector<int64_t>& sides);

/// Starts of windows of length `tile` that cover [0, size): 0, s, 2 s, ... with the stride s =
/// max(1, round(tile * (1 - overlap))), the last flush with the end, or left out when it would be (not
/// `use_all`). One window at 0 when size <= tile.
std::vector<int64_t> tile_starts(int64_t size, int64_t tile, double overlap, bool use_all = true);

/// Where crops of length `crop` begin within [low, high), when the file's chunks are `chunk` long and
/// begin at 0: all starts when chunk is 1 or does not divide crop; else only where a chunk begins, and
/// flush with both ends, so that every pixel is in some crop. Never empty; one start when the crop
/// does not fit.
struct CropStarts {
  CropStarts(int64_t low, int64_t high, int64_t crop, int64_t chunk);
  int64_t size() const { return size_; }
  int64_t operator[](int64_t i) const;

 private:
  int64_t low_, last_, step_, first_chunk_, size_;
};

/// The samples of one source.
///
/// Order    file after file; in a file slice after slice, in a slice tile after tile, the last axis
///          fastest.
/// region   narrows every file to llround(start * side) .. llround(end * side) per axis; windows
///          never reach past it.
/// Crops    training with random_crop: every image or slice counts per_epoch times, each time with
///          a window at a uniform place, drawn from (seed, epoch, global sample index). Tiles are
///          for evaluation then. With random_crop.align, of a file in chunks, along an axis where
///          the crop is a multiple of the chunk, the place is uniform among CropStarts.
/// Padding  an image smaller than its window starts at 0; the rest is padding.
/// Threads  const and safe from many threads.
class Windows {
 public:
  /// Reads headers of all files when slices or tiles depend on them.
  /// throws   ConfigError: keys that do not fit each other or model.image_size. DataError: a file
  ///          with another number of sides, an empty region.
  Windows(const config::Source& source, const config::Model& model, const Reader& reader,
          bool training);

  int64_t size() const { return size_; }
  /// Sample i is the whole of file i.
  bool is_whole() const { return is_whole_; }
  int64_t item_of(int64_t i) const;
  /// The first sample of a file; size() for one past the last file.
  int64_t first_of(int64_t item) const;
  /// `sides` are those of file item_of(i); `path` is for messages; `chunk` the sides of the file's
  /// chunks, empty = it has none.
  Window at(int64_t i, const AugmentPlace& place, const std::vector<int64_t>& sides,
            const std::string& path, const std::vector<int64_t>& chunk = {}) const;

 private:
  /// Part of a file that is used, per axis.
  struct Box {
    std::vector<int64_t> low, high;
  };
  Box box_of(const std::vector<int64_t>& sides, const std::string& path) const;
  int64_t slices_in(const Box& box) const;
  int64_t tiles_in(const Box& box) const;
  void check(const config::Source& source, const config::Model& model) const;
  /// Narrows the window to tile k of `box`, or to a window at a random place.
  void place_tile(int64_t k, const Box& box, Window& window) const;
  void place_crop(const AugmentPlace& place, const Box& box, const std::vector<int64_t>& chunk,
                  Window& window) const;
  bool is_sliced(size_t axis) const { return static_cast<int64_t>(axis) == slice_axis_; }

  std::vector<double> region_;
  int64_t slice_axis_ = -1;
  std::vector<int64_t> tile_, crop_;  // per axis of the sample; empty = none
  std::vector<double> overlap_;
  bool use_all_ = true, aligns_ = false;
  int64_t per_epoch_ = 1;
  size_t axes_ = 0;  // of a file
  bool is_whole_ = true;
  int64_t size_ = 0;
  std::vector<int64_t> first_;  // first sample of each file; empty: equally many in each
};

}  // namespace vitrail::data
