#include "vitrail/patching/edges.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "vitrail/core/error.h"
#include "vitrail/patching/edges_gradient.h"
#include "vitrail/patching/edges_math.h"
#include "vitrail/patching/edges_rows.h"
#include "vitrail/patching/edges_strips.h"

namespace vitrail::patching {
namespace {

/// States of an image or volume with a border of nothing around it, so that nobody asks where it ends.
struct Frame {
  explicit Frame(const Sides& sides_)
      : sides(sides_),
        row(sides.width + 2),
        plane(row * (sides.height + 2)),
        inner(row + 1 + (sides.is_volume ? plane : 0)),
        states(static_cast<size_t>(plane * (sides.is_volume ? sides.depth + 2 : 1)) + kReadOver,
               nothing) {}

  uint8_t* at(int64_t z, int64_t y) { return states.data() + inner + z * plane + y * row; }

  static constexpr size_t kReadOver = 8;  // words are read from any place
  Sides sides;
  int64_t row, plane, inner;
  std::vector<uint8_t> states;
};

/// The first three steps in the rows of a strip of an image.
class ImageThinner {
 public:
  ImageThinner(const EdgeImage& image, Strip strip)
      : image_(image),
        strip_(strip),
        norms_(3, image.sides.width, 1),
        directions_(2, image.sides.width, 0),
        parts_(4, image.sides.width, 0) {
    for (int64_t c = 0; c < image.channels; ++c)
      gradients_.emplace_back(image.channel(c), image.sides.height, image.sides.width, image.blur,
                              std::max<int64_t>(strip.first - 1, 0));
  }

  void operator()(Frame& frame) {
    const int64_t width = image_.sides.width;
    for (int64_t y = strip_.first - 1; y <= strip_.last; ++y) {
      if (y < 0 || y >= image_.sides.height)
        norms_.clear(y);
      else
        add_gradients(y);
      if (y <= strip_.first) continue;
      image_ridges(norms_.row(y - 2), norms_.row(y - 1), norms_.row(y), directions_.row(y - 1),
                   static_cast<int16_t>(image_.low), static_cast<int16_t>(image_.high),
                   frame.at(0, y - 1), width);
    }
  }

 private:
  void add_gradients(int64_t y) {
    const int64_t width = image_.sides.width;
    int16_t *gy = parts_.row(0), *gx = parts_.row(1), *norm = parts_.row(2);
    for (size_t c = 0; c < gradients_.size(); ++c) {
      gradients_[c].row(y, gy, gx);
      if (c == 0) {
        image_norms(gy, gx, norms_.row(y), directions_.row(y), width);
      } else {
        image_norms(gy, gx, norm, parts_.row(3), width);
        take_stronger(norm, parts_.row(3), norms_.row(y), directions_.row(y), width);
      }
    }
  }

  const EdgeImage& image_;
  Strip strip_;
  std::vector<ImageGradient> gradients_;  // of the channels
  RowRing<int16_t> norms_, directions_, parts_;
};

/// The same in the rows of a strip of each plane of a volume.
class VolumeThinner {
 public:
  VolumeThinner(const EdgeImage& image, Strip strip)
      : image_(image),
        strip_(strip),
        norms_(3, (strip.last - strip.first + 2) * stride(), 0),
        directions_(2, (strip.last - strip.first + 2) * stride(), 0),
        parts_(3, image.sides.width, 0),
        norm_(static_cast<size_t>(image.sides.width)),
        direction_(static_cast<size_t>(image.sides.width)) {
    const std::array<int64_t, 3> sides{image.sides.depth, image.sides.height, image.sides.width};
    for (int64_t c = 0; c < image.channels; ++c)
      gradients_.emplace_back(image.channel(c), sides, image.blur, first_row(), last_row());
  }

  void operator()(Frame& frame) {
    for (int64_t z = -1; z <= image_.sides.depth; ++z) {
      if (z < 0 || z == image_.sides.depth)
        norms_.clear(z);
      else
        for (int64_t y = first_row(); y < last_row(); ++y) add_gradients(z, y);
      if (z > 0) mark_ridges(z - 1, frame);
    }
  }

 private:
  int64_t stride() const { return image_.sides.width + 2; }
  int64_t first_row() const { return std::max<int64_t>(strip_.first - 1, 0); }
  int64_t last_row() const { return std::min(strip_.last + 1, image_.sides.height); }
  int64_t place(int64_t y) const { return (y - strip_.first + 1) * stride() + 1; }

  void add_gradients(int64_t z, int64_t y) {
    const int64_t width = image_.sides.width;
    int16_t *gz = parts_.row(0), *gy = parts_.row(1), *gx = parts_.row(2);
    int32_t* norm = norms_.row(z) + place(y);
    uint8_t* direction = directions_.row(z) + place(y);
    for (size_t c = 0; c < gradients_.size(); ++c) {
      gradients_[c].row(z, y, gz, gy, gx);
      if (c == 0) {
        volume_norms(gz, gy, gx, norm, direction, width);
      } else {
        volume_norms(gz, gy, gx, norm_.data(), direction_.data(), width);
        take_stronger(norm_.data(), direction_.data(), norm, direction, width);
      }
    }
  }

  void mark_ridges(int64_t z, Frame& frame) {
    int32_t* norms = norms_.row(z);
    const int64_t plane_after = norms_.row(z + 1) - norms, plane_before = norms_.row(z - 1) - norms;
    std::array<int64_t, 14> before{}, after{};
    for (int32_t d = 1; d < 14; ++d) {
      const Step step = step_of(d);
      const int64_t inside = step.y * stride() + step.x;
      before[static_cast<size_t>(d)] = step.z * plane_before - inside;
      after[static_cast<size_t>(d)] = step.z * plane_after + inside;
    }
    for (int64_t y = strip_.first; y < strip_.last; ++y)
      volume_ridges(norms + place(y), directions_.row(z) + place(y), before.data(), after.data(),
                    image_.low, image_.high, frame.at(z, y), image_.sides.width);
  }

  const EdgeImage& image_;
  Strip strip_;
  std::vector<VolumeGradient> gradients_;  // of the channels
  RowRing<int32_t> norms_;                 // planes of the strip's rows, with a border
  RowRing<uint8_t> directions_;            // likewise
  RowRing<int16_t> parts_;
  std::vector<int32_t> norm_;
  std::vector<uint8_t> direction_;
};

/// Makes weak pixels that touch an edge edges, and so on.
class Follower {
 public:
  explicit Follower(Frame& frame)
      : frame_(frame),
        any_(1, frame.sides.width, 1),
        touched_(static_cast<size_t>(frame.sides.width) + Frame::kReadOver, 0) {
    const int64_t planes = frame.sides.is_volume ? 1 : 0;
    for (int64_t z = -planes; z <= planes; ++z)
      for (int64_t y = -1; y <= 1; ++y) around_.push_back(z * frame.plane + y * frame.row);
  }

  void operator()() {
    const Sides& sides = frame_.sides;
    for (int64_t z = 0; z < sides.depth; ++z)
      for (int64_t y = 0; y < sides.height; ++y) follow_row(frame_.at(z, y));
  }

 private:
  /// Only weak pixels are looked at one by one: those that touch an edge are found in whole rows.
  void follow_row(uint8_t* row) {
    const int64_t width = frame_.sides.width;
    any_.clear(0);
    for (size_t i = 0; i < around_.size(); i += 3)
      join_states(row + around_[i] - 1, row + around_[i + 1] - 1, row + around_[i + 2] - 1,
                  any_.row(0) - 1, width + 2);
    touch_weak(row, any_.row(0), touched_.data(), width);
    for (int64_t x = 0; x < width; x += 8) {
      uint64_t word = 0;
      std::memcpy(&word, touched_.data() + x, 8);
      if (word == 0) continue;
      for (int64_t i = x; i < std::min(x + 8, width); ++i)
        if (touched_[static_cast<size_t>(i)] != 0 && row[i] == weak) follow(row + i);
    }
  }

  void follow(uint8_t* place) {
    *place = edge;
    found_.push_back(place);
    while (!found_.empty()) {
      uint8_t* next = found_.back();
      found_.pop_back();
      look_around(next);
    }
  }

  /// Three neighbours in one word.
  void look_around(uint8_t* place) {
    constexpr auto kWeak = std::bit_cast<uint32_t>(std::array<uint8_t, 4>{weak, weak, weak, 0});
    for (const int64_t offset : around_) {
      uint32_t word = 0;
      std::memcpy(&word, place + offset - 1, 4);
      if ((word & kWeak) == 0) continue;
      for (uint8_t* other = place + offset - 1; other <= place + offset + 1; ++other)
        if (*other == weak) {
          *other = edge;
          found_.push_back(other);
        }
    }
  }

  Frame& frame_;
  std::vector<int64_t> around_;   // to the middle of three neighbours in a row
  RowRing<uint8_t> any_;          // states around a row
  std::vector<uint8_t> touched_;  // its weak pixels that touch an edge
  std::vector<uint8_t*> found_;   // edges whose neighbours are still to be looked at
};

}  // namespace

EdgeOptions drawn_edges(uint64_t seed, int64_t epoch, int64_t index) {
  const DrawnEdges drawn = draw_edges(seed, epoch, index);
  return {drawn.blur, drawn.low, drawn.high};
}

void scale_to_bytes(std::span<const float> image, int64_t channels, std::span<const float> range,
                    std::span<uint8_t> bytes) {
  const int64_t broken = round_image(image, channels, range, bytes);
  VT_CHECK(broken < 0, "[patching] every pixel must be a finite number but channel {} has others",
           broken);
}

void edge_map(std::span<const uint8_t> bytes, int64_t channels, std::span<const int64_t> sides,
              const EdgeOptions& options, std::span<uint8_t> edges, const Runner& run) {
  const EdgeImage image = edge_image(bytes, channels, sides, options, edges.size());
  Frame frame(image.sides);
  const std::vector<Strip> strips = strips_of(image.sides, static_cast<bool>(run));
  run_all(run, std::ssize(strips), [&](int64_t s) {
    const Strip strip = strips[static_cast<size_t>(s)];
    if (image.sides.is_volume)
      VolumeThinner(image, strip)(frame);
    else
      ImageThinner(image, strip)(frame);
  });
  Follower{frame}();
  for (int64_t z = 0; z < image.sides.depth; ++z)
    for (int64_t y = 0; y < image.sides.height; ++y)
      mark_edges(frame.at(z, y), edges.data() + (z * image.sides.height + y) * image.sides.width,
                 image.sides.width);
}

}  // namespace vitrail::patching
