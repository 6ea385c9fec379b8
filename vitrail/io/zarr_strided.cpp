#include "vitrail/io/zarr_strided.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vitrail/io/zarr_metadata.h"

namespace vitrail::io {
namespace {

struct Axis {
  int64_t side, from, to;  // steps in bytes
};

/// Axes from the outermost of `to` to the densest; neighbours that can be walked as one are merged.
struct Loops {
  std::array<Axis, kMaxAxes> axes;
  size_t count = 0;

  Loops(std::span<const int64_t> from, std::span<const int64_t> to,
        std::span<const int64_t> sides) {
    for (size_t k = 0; k < sides.size(); ++k)
      if (sides[k] != 1) axes[count++] = {sides[k], from[k], to[k]};
    std::stable_sort(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(count),
                     [](const Axis& a, const Axis& b) { return a.to > b.to; });
    merge();
  }

  void merge() {
    size_t kept = 0;
    for (size_t k = 0; k < count; ++k) {
      const Axis& inner = axes[k];
      Axis* const outer = kept > 0 ? &axes[kept - 1] : nullptr;
      if (outer != nullptr && outer->from == inner.from * inner.side &&
          outer->to == inner.to * inner.side)
        *outer = {outer->side * inner.side, inner.from, inner.to};
      else
        axes[kept++] = inner;
    }
    count = kept;
  }
};

template <class T>
void copy_elements(const std::byte* from, std::byte* to, const Axis& axis) {
  for (int64_t i = 0; i < axis.side; ++i)
    std::memcpy(to + i * axis.to, from + i * axis.from, sizeof(T));
}

void copy_row(const std::byte* from, std::byte* to, const Axis& axis, int64_t item) {
  if (axis.from == item && axis.to == item) {
    std::memcpy(to, from, static_cast<size_t>(axis.side * item));
    return;
  }
  switch (item) {
    case 1:
      return copy_elements<uint8_t>(from, to, axis);
    case 2:
      return copy_elements<uint16_t>(from, to, axis);
    case 4:
      return copy_elements<uint32_t>(from, to, axis);
    default:
      return copy_elements<uint64_t>(from, to, axis);
  }
}

void copy_plane(const std::byte* from, std::byte* to, const Axis& rows, const Axis& row,
                int64_t item) {
  for (int64_t i = 0; i < rows.side; ++i)
    copy_row(from + i * rows.from, to + i * rows.to, row, item);
}

void copy_axes(const std::byte* from, std::byte* to, const Axis* axes, size_t count, int64_t item) {
  if (count == 0) {
    std::memcpy(to, from, static_cast<size_t>(item));
  } else if (count == 1) {
    copy_row(from, to, axes[0], item);
  } else if (count == 2) {
    copy_plane(from, to, axes[0], axes[1], item);
  } else {
    for (int64_t i = 0; i < axes[0].side; ++i)
      copy_axes(from + i * axes[0].from, to + i * axes[0].to, axes + 1, count - 1, item);
  }
}

bool has_no_places(std::span<const int64_t> sides) {
  return std::find(sides.begin(), sides.end(), 0) != sides.end();
}

}  // namespace

void copy_strided(const std::byte* from, std::span<const int64_t> from_strides, std::byte* to,
                  std::span<const int64_t> to_strides, std::span<const int64_t> sides,
                  int64_t item) {
  if (has_no_places(sides)) return;
  const Loops loops(from_strides, to_strides, sides);
  copy_axes(from, to, loops.axes.data(), loops.count, item);
}

void fill_strided(const std::byte* element, std::byte* to, std::span<const int64_t> to_strides,
                  std::span<const int64_t> sides, int64_t item) {
  if (has_no_places(sides)) return;
  const std::array<int64_t, kMaxAxes> still{};
  Loops loops(std::span<const int64_t>(still).first(sides.size()), to_strides, sides);
  // Rows come from a run of equal elements, which is copied as fast as any other row.
  constexpr int64_t kRun = 512;
  std::array<std::byte, 8 * kRun> run;
  for (int64_t i = 0; i < kRun; ++i)
    std::memcpy(run.data() + i * item, element, static_cast<size_t>(item));
  if (loops.count > 0 && loops.axes[loops.count - 1].to == item) {
    Axis& row = loops.axes[loops.count - 1];
    const int64_t side = row.side;
    for (int64_t at = 0; at < side; at += kRun) {
      row = {std::min(kRun, side - at), item, item};
      copy_axes(run.data(), to + at * item, loops.axes.data(), loops.count, item);
    }
    return;
  }
  copy_axes(element, to, loops.axes.data(), loops.count, item);
}

}  // namespace vitrail::io
