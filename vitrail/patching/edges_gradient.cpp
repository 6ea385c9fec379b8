#include "vitrail/patching/edges_gradient.h"

#include <algorithm>

#include "vitrail/patching/edges_math.h"
#include "vitrail/patching/edges_rows.h"

namespace vitrail::patching {
namespace {

void repeat_ends(int16_t* row, int64_t n) {
  row[-1] = row[0];
  row[n] = row[n - 1];
}

/// Rounding of the whole kernel, whose sum is 2^shift.
int shift_of(int64_t radius, int axes) { return axes * (radius == 1 ? 2 : 4); }

}  // namespace

ImageGradient::ImageGradient(const uint8_t* bytes, int64_t height, int64_t width, int64_t blur,
                             int64_t first)
    : bytes_(bytes),
      height_(height),
      width_(width),
      radius_(blur / 2),
      ready_(std::max<int64_t>(first - 1, 0)),
      blurred_(3, radius_ == 0 ? 0 : width, 0),
      across_(1, radius_ == 0 ? 0 : width, 2),
      sobel_(2, width, 1) {}

const uint8_t* ImageGradient::blurred(int64_t y) {
  return radius_ == 0 ? bytes_ + y * width_ : blurred_.row(y);
}

void ImageGradient::blur_row(int64_t y) {
  TapRows<uint8_t> taps{};
  for (int64_t t = 0; t <= 2 * radius_; ++t)
    taps[static_cast<size_t>(t)] = bytes_ + reflected<int64_t>(y + t - radius_, height_) * width_;
  uint16_t* across = across_.row(0);
  smooth_across(taps, radius_, across, width_);
  mirror_ends(across, width_, radius_);
  smooth_along(across, radius_, shift_of(radius_, 2), blurred_.row(y), width_);
}

void ImageGradient::row(int64_t y, int16_t* gy, int16_t* gx) {
  const int64_t before = std::max<int64_t>(y - 1, 0), after = std::min(y + 1, height_ - 1);
  for (; radius_ > 0 && ready_ <= after; ++ready_) blur_row(ready_);
  int16_t *smooth = sobel_.row(0), *difference = sobel_.row(1);
  sobel_across(blurred(before), blurred(y), blurred(after), smooth, difference, width_);
  repeat_ends(smooth, width_);
  repeat_ends(difference, width_);
  differ_along(smooth, gx, width_);
  smooth_along(difference, gy, width_);
}

VolumeGradient::VolumeGradient(const uint8_t* bytes, std::span<const int64_t> sides, int64_t blur,
                               int64_t first, int64_t last)
    : bytes_(bytes),
      depth_(sides[0]),
      height_(sides[1]),
      width_(sides[2]),
      radius_(blur / 2),
      low_(std::max<int64_t>(first - 1, 0)),
      high_(std::min(last + 1, height_)),
      from_(std::max<int64_t>(low_ - radius_, 0)),
      to_(std::min(high_ + radius_, height_)),
      blurred_(3, radius_ == 0 ? 0 : (high_ - low_) * width_, 0),
      deep_(static_cast<size_t>(radius_ == 0 ? 0 : (to_ - from_) * width_)),
      across_(1, radius_ == 0 ? 0 : width_, 2),
      smooth_(3, width_, 0),
      difference_(3, width_, 0),
      sobel_(3, width_, 1) {}

const uint8_t* VolumeGradient::blurred(int64_t z, int64_t y) {
  return radius_ == 0 ? bytes_ + (z * height_ + y) * width_ : blurred_.row(z) + (y - low_) * width_;
}

void VolumeGradient::blur_plane(int64_t z) {
  const int64_t plane = height_ * width_;
  TapRows<uint8_t> planes{};
  for (int64_t t = 0; t <= 2 * radius_; ++t)
    planes[static_cast<size_t>(t)] =
        bytes_ + reflected<int64_t>(z + t - radius_, depth_) * plane + from_ * width_;
  smooth_across(planes, radius_, deep_.data(), (to_ - from_) * width_);
  uint16_t* across = across_.row(0);
  for (int64_t y = low_; y < high_; ++y) {
    TapRows<uint16_t> taps{};
    for (int64_t t = 0; t <= 2 * radius_; ++t)
      taps[static_cast<size_t>(t)] =
          deep_.data() + (reflected<int64_t>(y + t - radius_, height_) - from_) * width_;
    smooth_across(taps, radius_, across, width_);
    mirror_ends(across, width_, radius_);
    smooth_along(across, radius_, shift_of(radius_, 3), blurred_.row(z) + (y - low_) * width_,
                 width_);
  }
}

void VolumeGradient::differ_row(int64_t z, int64_t y) {
  const int64_t before = std::max<int64_t>(z - 1, 0), after = std::min(z + 1, depth_ - 1);
  sobel_across(blurred(before, y), blurred(z, y), blurred(after, y), smooth_.row(y),
               difference_.row(y), width_);
}

void VolumeGradient::row(int64_t z, int64_t y, int16_t* gz, int16_t* gy, int16_t* gx) {
  const int64_t deepest = std::min(z + 1, depth_ - 1);
  for (; radius_ > 0 && planes_ready_ <= deepest; ++planes_ready_) blur_plane(planes_ready_);
  if (plane_ != z) plane_ = z, rows_ready_ = low_;
  const int64_t before = std::max<int64_t>(y - 1, 0), after = std::min(y + 1, height_ - 1);
  for (; rows_ready_ <= after; ++rows_ready_) differ_row(z, rows_ready_);
  int16_t *ss = sobel_.row(0), *sd = sobel_.row(1), *ds = sobel_.row(2);
  smooth_across(smooth_.row(before), smooth_.row(y), smooth_.row(after), ss, width_);
  differ_across(smooth_.row(before), smooth_.row(after), sd, width_);
  smooth_across(difference_.row(before), difference_.row(y), difference_.row(after), ds, width_);
  for (int16_t* part : {ss, sd, ds}) repeat_ends(part, width_);
  differ_along(ss, gx, width_);
  smooth_along(sd, gy, width_);
  smooth_along(ds, gz, width_);
}

}  // namespace vitrail::patching
