#include <algorithm>
#include <cmath>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/inspect.h"
#include "vitrail/data/resize.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

constexpr int64_t kCell = 64, kGap = 2, kColumns = 16, kPerSource = 64;
constexpr int64_t kPitch = kCell + kGap;

/// [D, H, W] -> its middle [H, W].
Pixels middle_slice(Pixels pixels) {
  if (pixels.sides.size() < 3) return pixels;
  const int64_t slice = pixels.sides[1] * pixels.sides[2] * pixels.channels;
  const auto first = pixels.values.begin() + pixels.sides[0] / 2 * slice;
  pixels.values = std::vector<uint8_t>(first, first + slice);
  pixels.sides.erase(pixels.sides.begin());
  return pixels;
}

/// One sample as an RGB cell in 0 .. 255.
std::vector<uint8_t> draw_cell(const Reader& reader, int64_t sample) {
  std::vector<uint8_t> cell(static_cast<size_t>(kCell * kCell * 3), 0);
  try {
    const Pixels slice = middle_slice(reader.decode(sample));
    const FloatPixels scaled =
        resize(to_channels(slice, 3, reader.describe(sample).path), {kCell, kCell});
    for (size_t i = 0; i < cell.size(); ++i)
      cell[i] = static_cast<uint8_t>(std::lround(scaled.values[i] / scaled.full_scale * 255.0f));
  } catch (const core::DataError&) {  // stays black; inspect() lists it
  }
  return cell;
}

void paste(const std::vector<uint8_t>& cell, int64_t row, int64_t column, Pixels& sheet) {
  for (int64_t y = 0; y < kCell; ++y) {
    const int64_t to = ((row * kPitch + y) * sheet.sides[1] + column * kPitch) * 3;
    std::copy_n(cell.begin() + y * kCell * 3, kCell * 3, sheet.values.begin() + to);
  }
}

}  // namespace

Pixels contact_sheet(const std::vector<config::Source>& sources, const config::Model& model) {
  std::vector<std::unique_ptr<Reader>> readers;
  int64_t rows = 0;
  for (const config::Source& source : sources) {
    readers.push_back(open_reader(source, model));
    rows += (std::min(readers.back()->size(), kPerSource) + kColumns - 1) / kColumns;
  }
  Pixels sheet;
  sheet.sides = {rows * kPitch, kColumns * kPitch};
  sheet.channels = 3;
  sheet.values.assign(static_cast<size_t>(count(sheet.sides) * 3), 255);
  int64_t first_row = 0;
  for (const std::unique_ptr<Reader>& reader : readers) {
    const int64_t n = std::min(reader->size(), kPerSource);
    for (int64_t i = 0; i < n; ++i)
      paste(draw_cell(*reader, i * reader->size() / n), first_row + i / kColumns, i % kColumns,
            sheet);
    first_row += (n + kColumns - 1) / kColumns;
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
