#include <algorithm>
#include <array>
#include <cmath>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/inspect.h"
#include "vitrail/data/resize.h"
#include "vitrail/data/value_range.h"
#include "vitrail/data/windows.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

constexpr int64_t kCell = 64, kGap = 2, kColumns = 16, kPerSource = 64;
constexpr int64_t kPitch = kCell + kGap;

using Cell = std::vector<uint8_t>;  // RGB, [kCell, kCell, 3]

/// Of a volume's window the middle slice.
Window middle_slice(Window window) {
  if (window.sample_sides().size() < 3) return window;
  window.origin[0] += window.extent[0] / 2;
  window.sides[0] = window.extent[0] = 1;
  window.slice_axis = 0;
  return window;
}

/// Grey and RGB as they are; of any other number of channels the first.
Pixels shown_channels(Pixels pixels, const std::string& path) {
  if (pixels.channels == 1 || pixels.channels == 3) return to_channels(std::move(pixels), 3, path);
  const auto first_of = [&](auto& values) {
    for (size_t i = 0; i * static_cast<size_t>(pixels.channels) < values.size(); ++i)
      values[i] = values[i * static_cast<size_t>(pixels.channels)];
    values.resize(values.size() / static_cast<size_t>(pixels.channels));
  };
  first_of(pixels.values);
  first_of(pixels.floats);
  pixels.channels = 1;
  return to_channels(std::move(pixels), 3, path);
}

/// Floats without a range of their own are shown from their least to their largest value. That of a
/// statistics file is of the model's channels, not of those shown.
config::Source shown_range(config::Source source, const Pixels& pixels) {
  source.statistics.clear();
  if (pixels.is_float() && !(source.normalize == "percentile")) source.normalize.value = "minmax";
  return source;
}

/// Neighbouring classes get hues a golden angle apart.
std::array<float, 3> colour_of(int32_t label) {
  std::array<float, 3> rgb{};
  for (size_t c = 0; c < 3; ++c)
    rgb[c] = 127.5f + 127.5f * std::cos(2.39996f * static_cast<float>(label - 1) -
                                        2.0944f * static_cast<float>(c));
  return rgb;
}

/// Class 0 stays as it is, any other is tinted, what counts nowhere is darkened.
Cell overlay(const Cell& image, const Mask& mask) {
  Cell result = image;
  for (size_t i = 0; i < result.size(); ++i) {
    const int32_t label = mask.classes[i / 3];
    if (label == 0) continue;
    const float tint = label < 0 ? 0.0f : colour_of(label)[i % 3];
    result[i] = static_cast<uint8_t>((static_cast<float>(result[i]) + tint) / 2);
  }
  return result;
}

/// The image with the outline of each box in the colour of its class. `window` is what
/// the cell shows of the file.
Cell outlines(const Cell& image, const std::vector<LabelledBox>& boxes, const Window& window) {
  Cell result = image;
  const auto cell_of = [&](float place, size_t axis) {
    const auto origin = static_cast<float>(window.origin[axis]);
    const auto side = static_cast<float>(window.sides[axis]);
    return static_cast<int64_t>(std::floor((place - origin) / side * static_cast<float>(kCell)));
  };
  for (const LabelledBox& box : boxes) {
    // Cells from the low corner to the last one that the high corner touches.
    const int64_t y0 = cell_of(box.y0, 0), y1 = cell_of(std::nextafter(box.y1, box.y0), 0);
    const int64_t x0 = cell_of(box.x0, 1), x1 = cell_of(std::nextafter(box.x1, box.x0), 1);
    const std::array<float, 3> colour = colour_of(static_cast<int32_t>(box.label) + 1);
    for (int64_t y = std::max<int64_t>(y0, 0); y <= std::min(y1, kCell - 1); ++y)
      for (int64_t x = std::max<int64_t>(x0, 0); x <= std::min(x1, kCell - 1); ++x) {
        if (y != y0 && y != y1 && x != x0 && x != x1) continue;
        for (size_t c = 0; c < 3; ++c)
          result[static_cast<size_t>((y * kCell + x) * 3) + c] = static_cast<uint8_t>(colour[c]);
      }
  }
  return result;
}

/// The samples of one source as cells: the image and, with masks or boxes, the same with them.
class Cells {
 public:
  Cells(const config::Source& source, const config::Model& model)
      : source_(source),
        reader_(open_reader(source, model)),
        windows_(source, model, *reader_, /*training=*/true) {}

  int64_t per_sample() const { return reader_->has_masks() || reader_->max_boxes() > 0 ? 2 : 1; }
  int64_t samples() const { return std::min(windows_.size(), kPerSource / per_sample()); }
  int64_t rows() const { return (samples() * per_sample() + kColumns - 1) / kColumns; }

  /// per_sample() cells of sample k of samples(), black when it is broken.
  std::vector<Cell> draw(int64_t k) {
    const Cell black(static_cast<size_t>(kCell * kCell * 3), 0);
    try {
      return draw_good(k * windows_.size() / samples());
    } catch (const core::DataError&) {  // inspect() lists it
      return std::vector<Cell>(static_cast<size_t>(per_sample()), black);
    }
  }

 private:
  /// A file, or the part of it that is shown.
  struct Shown {
    int64_t item = -1;
    Pixels image;
    Mask mask;
    ValueRange range;
  };

  std::vector<Cell> draw_good(int64_t i) {
    const int64_t item = windows_.item_of(i);
    const std::string path = reader_->describe(item).path;
    const bool by_boxes = reader_->reads_boxes();
    if (!by_boxes && shown_.item != item) {
      shown_.item = -1;
      shown_ = ranged(item, path, reader_->decode(item),
                      reader_->has_masks() ? reader_->decode_mask(item) : Mask{});
    }
    const std::vector<int64_t> sides = by_boxes ? reader_->shape(item).sides : shown_.image.sides;
    const Window window = middle_slice(windows_.at(i, {0, 0, i}, sides, path));
    if (!by_boxes) return cells_of(shown_, window, window);
    const Box box{window.origin, window.extent};
    const Shown part = ranged(item, path, reader_->decode_box(item, box),
                              reader_->has_masks() ? reader_->decode_mask_box(item, box) : Mask{});
    Window inside = window;
    std::fill(inside.origin.begin(), inside.origin.end(), 0);
    return cells_of(part, inside, window);
  }

  std::vector<Cell> cells_of(const Shown& file, const Window& window, const Window& in_file) const {
    const Pixels scaled = resize(cut(file.image, window, file.range.low), {kCell, kCell});
    Cell cell;
    for (size_t v = 0; v < scaled.floats.size(); ++v) {
      const float value = std::clamp(file.range.apply(scaled.floats[v], v % 3), 0.0f, 1.0f);
      cell.push_back(static_cast<uint8_t>(std::lround(value * 255.0f)));
    }
    if (!file.mask.empty())
      return {cell, overlay(cell, resize(cut(file.mask, window), {kCell, kCell}))};
    if (reader_->max_boxes() > 0) return {cell, outlines(cell, reader_->boxes(file.item), in_file)};
    return {cell};
  }

  Shown ranged(int64_t item, const std::string& path, Pixels image, Mask mask) const {
    Shown file{item, shown_channels(std::move(image), path), std::move(mask), {}};
    file.range = RangeRule(shown_range(source_, file.image)).of(file.image);
    return file;
  }

  config::Source source_;
  std::unique_ptr<Reader> reader_;
  Windows windows_;
  Shown shown_;  // the last file that was decoded as a whole
};

void paste(const Cell& cell, int64_t row, int64_t column, Pixels& sheet) {
  for (int64_t y = 0; y < kCell; ++y) {
    const int64_t to = ((row * kPitch + y) * sheet.sides[1] + column * kPitch) * 3;
    std::copy_n(cell.begin() + y * kCell * 3, kCell * 3, sheet.values.begin() + to);
  }
}

}  // namespace

Pixels contact_sheet(const std::vector<config::Source>& sources, const config::Model& model) {
  std::vector<std::unique_ptr<Cells>> all;
  int64_t rows = 0;
  for (const config::Source& source : sources) {
    all.push_back(std::make_unique<Cells>(source, model));
    rows += all.back()->rows();
  }
  Pixels sheet;
  sheet.sides = {rows * kPitch, kColumns * kPitch};
  sheet.channels = 3;
  sheet.values.assign(static_cast<size_t>(count(sheet.sides) * 3), 255);
  int64_t first_row = 0;
  for (const std::unique_ptr<Cells>& cells : all) {
    int64_t place = 0;
    for (int64_t k = 0; k < cells->samples(); ++k)
      for (const Cell& cell : cells->draw(k)) {
        paste(cell, first_row + place / kColumns, place % kColumns, sheet);
        ++place;
      }
    first_row += cells->rows();
  }
  return sheet;
}

void write_contact_sheet(const std::vector<config::Source>& sources, const config::Model& model,
                         const std::string& path) {
  Pixels sheet = contact_sheet(sources, model);
  io::Image image;
  image.height = static_cast<int>(sheet.sides[0]);
  image.width = static_cast<int>(sheet.sides[1]);
  image.channels = 3;
  image.pixels = std::move(sheet.values);
  core::write_file_atomic(path, io::encode_png(image));
}

}  // namespace vitrail::data
