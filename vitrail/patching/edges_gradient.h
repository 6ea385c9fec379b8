#pragma once
/// The Sobel gradient of a blurred image or volume, row after row: a few rows or planes are kept, not
/// the image.
///
/// Borders  the blur mirrors (c b|a b c), the Sobel operator goes on with the last value (a a|a b c).
/// Threads  one object a thread; strips of rows know nothing of each other.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/edges_math.h"

namespace vitrail::patching {

/// Rows of `width` numbers in turns: row r takes the place of row r - count. A margin at both ends of
/// each can be read and written.
template <class T>
class RowRing {
 public:
  RowRing(int64_t count, int64_t width, int64_t margin)
      : count_(count),
        stride_(width + 2 * margin),
        margin_(margin),
        values_(static_cast<size_t>(count * stride_), T{}) {}
  /// r >= -count
  T* row(int64_t r) { return values_.data() + (r + count_) % count_ * stride_ + margin_; }
  void clear(int64_t r) { std::fill_n(row(r) - margin_, stride_, T{}); }

 private:
  int64_t count_, stride_, margin_;
  std::vector<T> values_;
};

/// Writes `margin` mirrored numbers before and behind a row.
template <class T>
void mirror_ends(T* row, int64_t n, int64_t margin) {
  for (int64_t r = 1; r <= margin; ++r) {
    row[-r] = row[reflected<int64_t>(-r, n)];
    row[n - 1 + r] = row[reflected<int64_t>(n - 1 + r, n)];
  }
}

/// One channel [height, width] of an image.
class ImageGradient {
 public:
  /// first: of the rows that will be asked for.
  ImageGradient(const uint8_t* bytes, int64_t height, int64_t width, int64_t blur, int64_t first);

  /// Row y; y goes up by 1 from call to call.
  void row(int64_t y, int16_t* gy, int16_t* gx);

 private:
  const uint8_t* blurred(int64_t y);
  void blur_row(int64_t y);

  const uint8_t* bytes_;
  int64_t height_, width_, radius_;
  int64_t ready_;  // blurred rows below this one are there
  RowRing<uint8_t> blurred_;
  RowRing<uint16_t> across_;
  RowRing<int16_t> sobel_;  // rows 0 and 1: smoothed and differed across
};

/// Rows first to last - 1 of each plane of one channel [depth, height, width] of a volume.
class VolumeGradient {
 public:
  VolumeGradient(const uint8_t* bytes, std::span<const int64_t> sides, int64_t blur, int64_t first,
                 int64_t last);

  /// Row (z, y), in order from (0, first).
  void row(int64_t z, int64_t y, int16_t* gz, int16_t* gy, int16_t* gx);

 private:
  const uint8_t* blurred(int64_t z, int64_t y);
  void blur_plane(int64_t z);
  void differ_row(int64_t z, int64_t y);

  const uint8_t* bytes_;
  int64_t depth_, height_, width_, radius_;
  int64_t low_, high_;          // rows of which the blur is needed
  int64_t from_, to_;           // rows that the blur reads
  int64_t planes_ready_ = 0;    // planes below are blurred
  int64_t plane_ = -1;          // plane whose rows are in the rings below
  int64_t rows_ready_ = 0;      // rows below are in them
  RowRing<uint8_t> blurred_;    // a plane a row
  std::vector<uint16_t> deep_;  // rows from_ ... to_ - 1 of a plane, smoothed along z
  RowRing<uint16_t> across_;
  RowRing<int16_t> smooth_, difference_;  // along z; rows of the plane
  RowRing<int16_t> sobel_;                // rows 0 to 2: ss, sd, ds (z then y)
};

}  // namespace vitrail::patching
