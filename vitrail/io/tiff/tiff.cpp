#include "vitrail/io/tiff.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/io/array_rows.h"
#include "vitrail/io/raw.h"
#include "vitrail/io/tiff/tiff_pages.h"

namespace vitrail::io {
namespace {

constexpr int64_t kMaxUnpacked = int64_t{256} << 20, kMaxExpansion = 2048;

/// Handles that no thread uses at the moment.
class HandlePool {
 public:
  HandlePool(std::span<const std::byte> file, std::string name)
      : file_(file), name_(std::move(name)) {}

  std::unique_ptr<TiffHandle> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<TiffHandle> handle = std::move(free_.back());
        free_.pop_back();
        return handle;
      }
    }
    return std::make_unique<TiffHandle>(file_, name_);
  }
  void give(std::unique_ptr<TiffHandle> handle) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(handle));
  }

 private:
  std::span<const std::byte> file_;
  std::string name_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<TiffHandle>> free_;
};

/// A range along one axis.
struct Range {
  int64_t low = 0, size = 1;
};

class TiffArray : public ArrayFile {
 public:
  TiffArray(std::span<const std::byte> file, std::shared_ptr<const void> owner, std::string name,
            TiffPages pages, std::unique_ptr<TiffHandle> first)
      : owner_(std::move(owner)),
        name_(std::move(name)),
        pages_(std::move(pages)),
        handles_(file, name_) {
    const TiffPage& page = pages_.page;
    const PageAxes outer =
        page_axes(pages_.description, static_cast<int64_t>(pages_.offsets.size()), page.samples);
    page_sizes_ = outer.sizes;
    axes_ = outer.letters;
    shape_ = outer.sizes;
    if (page.samples > 1)
      VT_REQUIRE(DataError, axes_.find('c') == std::string::npos,
                 "[data] {}: pages are channels and so are the {} samples of a pixel; save one of "
                 "them as files of their own",
                 name_, page.samples);
    if (page.is_planar) add_axis('c', page.samples);
    add_axis('y', page.height);
    add_axis('x', page.width);
    if (page.samples > 1 && !page.is_planar) add_axis('c', page.samples);
    check_sizes(static_cast<int64_t>(file.size()));
    handles_.give(std::move(first));
  }

  const std::vector<int64_t>& shape() const override { return shape_; }
  core::DType dtype() const override { return pages_.page.dtype; }
  std::string axes() const override { return axes_; }

  std::vector<int64_t> chunk_shape() const override {
    std::vector<int64_t> chunk(shape_.size(), 1);
    const size_t y = page_sizes_.size() + (pages_.page.is_planar ? 1 : 0);
    chunk[y] = std::min(pages_.page.piece_height, shape_[y]);
    chunk[y + 1] = std::min(pages_.page.piece_width, shape_[y + 1]);
    if (y + 2 < shape_.size()) chunk[y + 2] = shape_[y + 2];
    return chunk;
  }

  void read(std::span<const int64_t> origin, std::span<const int64_t> sides,
            std::byte* out) const override {
    for (const int64_t side : sides)
      if (side == 0) return;
    std::unique_ptr<TiffHandle> handle = handles_.take();
    handle->message.clear();
    const size_t outer = page_sizes_.size();
    const std::vector<int64_t> page_steps = row_major_strides(page_sizes_, 1);
    const std::vector<int64_t> out_steps = row_major_strides(sides, value_bytes());
    int64_t first = 0;
    for (size_t axis = 0; axis < outer; ++axis) first += origin[axis] * page_steps[axis];
    // One row of pages at a time, so that the last axis of pages is walked here.
    const int64_t n = outer == 0 ? 1 : sides[outer - 1];
    for_each_row(
        sides.first(outer), page_steps, out_steps,
        [&](int64_t page, int64_t to) {
          for (int64_t k = 0; k < n; ++k)
            read_page(*handle, page + k, origin.subspan(outer), sides.subspan(outer),
                      out + to + (outer == 0 ? 0 : k * out_steps[outer - 1]));
        },
        first);
    handles_.give(std::move(handle));
  }

 private:
  void add_axis(char letter, int64_t size) {
    axes_ += letter;
    shape_.push_back(size);
  }

  int64_t value_bytes() const { return core::size_bytes(pages_.page.dtype); }
  /// Bytes between neighbouring pixels of a piece.
  int64_t pixel_bytes() const {
    return value_bytes() * (pages_.page.is_planar ? 1 : pages_.page.samples);
  }
  int64_t piece_bytes() const {
    return core::checked_mul(
        core::checked_mul(pages_.page.piece_height, pages_.page.piece_width, "a piece"),
        pixel_bytes(), "a piece");
  }

  void check_sizes(int64_t file_bytes) const {
    int64_t whole = 0, piece = 0;
    try {
      whole = core::checked_mul(core::checked_product(shape_, "the values"), value_bytes(),
                                "the values");
      piece = piece_bytes();
    } catch (const core::Error& error) {
      core::fail<core::DataError>("[data] {}: {}", name_, error.what());
    }
    const int64_t most = kMaxUnpacked + std::min(file_bytes, int64_t{1} << 50) * kMaxExpansion;
    VT_REQUIRE(DataError, whole <= most && piece <= most,
               "[data] {}: broken TIFF: {} bytes of values in pieces of {} cannot be in a file of "
               "{} bytes",
               name_, whole, piece, file_bytes);
  }

  /// origin and sides are [c] y x or y x [c].
  void read_page(TiffHandle& tiff, int64_t page, std::span<const int64_t> origin,
                 std::span<const int64_t> sides, std::byte* out) const {
    const uint64_t offset = pages_.offsets[static_cast<size_t>(page)];
    if (TIFFCurrentDirOffset(tiff.get()) != offset) {
      tiff.require(TIFFSetSubDirectory(tiff.get(), offset) == 1, "a page cannot be read");
      if (pages_.page.compression == COMPRESSION_JPEG) choose_rgb(tiff);
    }
    if (!pages_.page.is_planar) {
      const bool has_samples = pages_.page.samples > 1;
      read_plane(tiff, 0, {origin[0], sides[0]}, {origin[1], sides[1]},
                 has_samples ? Range{origin[2], sides[2]} : Range{}, out);
      return;
    }
    const int64_t plane_bytes = sides[1] * sides[2] * value_bytes();
    for (int64_t c = 0; c < sides[0]; ++c)
      read_plane(tiff, static_cast<uint16_t>(origin[0] + c), {origin[1], sides[1]},
                 {origin[2], sides[2]}, {}, out + c * plane_bytes);
  }

  static void choose_rgb(const TiffHandle& tiff) {
    uint16_t photometric = 0;
    if (TIFFGetField(tiff.get(), TIFFTAG_PHOTOMETRIC, &photometric) == 1 &&
        photometric == PHOTOMETRIC_YCBCR)
      TIFFSetField(tiff.get(), TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  }

  void read_plane(TiffHandle& tiff, uint16_t plane, Range y, Range x, Range samples,
                  std::byte* out) const {
    const TiffPage& page = pages_.page;
    std::vector<std::byte> buffer(is_direct() ? 0 : static_cast<size_t>(piece_bytes()));
    const int64_t first_row = y.low / page.piece_height * page.piece_height;
    const int64_t first_column = x.low / page.piece_width * page.piece_width;
    for (int64_t top = first_row; top < y.low + y.size; top += page.piece_height)
      for (int64_t left = first_column; left < x.low + x.size; left += page.piece_width)
        copy_piece(piece_at(tiff, plane, top, left, buffer), top, left, y, x, samples, out);
  }

  /// Pieces lie in the file as they are in memory.
  bool is_direct() const {
    return pages_.page.compression == COMPRESSION_NONE && !pages_.page.has_reversed_bits &&
           (!pages_.is_big_endian || value_bytes() == 1);
  }

  /// A strip or tile, in `buffer` unless it can be used where it lies.
  const std::byte* piece_at(TiffHandle& tiff, uint16_t plane, int64_t top, int64_t left,
                            std::vector<std::byte>& buffer) const {
    const TiffPage& page = pages_.page;
    const auto row = static_cast<uint32_t>(top), column = static_cast<uint32_t>(left);
    // A strip at the bottom of a page may be shorter.
    const int64_t rows = std::min(page.piece_height, page.height - top);
    const int64_t wanted = page.is_tiled ? piece_bytes() : rows * page.piece_width * pixel_bytes();
    const uint32_t number = page.is_tiled ? TIFFComputeTile(tiff.get(), column, row, 0, plane)
                                          : TIFFComputeStrip(tiff.get(), row, plane);
    if (is_direct()) {
      const uint64_t at = TIFFGetStrileOffset(tiff.get(), number);
      const auto bytes = static_cast<uint64_t>(wanted);
      tiff.require(TIFFGetStrileByteCount(tiff.get(), number) >= bytes && at > 0 &&
                       at <= tiff.file.size() && bytes <= tiff.file.size() - at,
                   "a strip or tile does not hold its values");
      return tiff.file.data() + at;
    }
    const tmsize_t got = page.is_tiled
                             ? TIFFReadEncodedTile(tiff.get(), number, buffer.data(), wanted)
                             : TIFFReadEncodedStrip(tiff.get(), number, buffer.data(), wanted);
    tiff.require(got == wanted, "a strip or tile does not hold its values");
    return buffer.data();
  }

  void copy_piece(const std::byte* piece, int64_t top, int64_t left, Range y, Range x,
                  Range samples, std::byte* out) const {
    const TiffPage& page = pages_.page;
    const int64_t each = value_bytes() * samples.size, pixel = pixel_bytes();
    const int64_t low = std::max(x.low, left);
    const int64_t high = std::min(x.low + x.size, left + page.piece_width);
    const int64_t last = std::min(y.low + y.size, top + page.piece_height);
    for (int64_t row = std::max(y.low, top); row < last; ++row) {
      const std::byte* from = piece + ((row - top) * page.piece_width + low - left) * pixel +
                              samples.low * value_bytes();
      std::byte* to = out + ((row - y.low) * x.size + low - x.low) * each;
      if (each == pixel) {
        std::memcpy(to, from, static_cast<size_t>((high - low) * each));
        continue;
      }
      for (int64_t i = low; i < high; ++i, from += pixel, to += each)
        std::memcpy(to, from, static_cast<size_t>(each));
    }
  }

  std::shared_ptr<const void> owner_;
  std::string name_;
  TiffPages pages_;
  std::vector<int64_t> page_sizes_, shape_;
  std::string axes_;
  mutable HandlePool handles_;
};

/// A stack that ImageJ wrote behind one directory: its values follow each other.
class HugeImageJ : public RawArray {
 public:
  HugeImageJ(std::span<const std::byte> file, std::shared_ptr<const void> owner, RawLayout layout,
             const std::string& name, std::string axes)
      : RawArray(file, std::move(owner), std::move(layout), name), axes_(std::move(axes)) {}
  std::string axes() const override { return axes_; }

 private:
  std::string axes_;
};

/// Null when the file is no such stack.
std::unique_ptr<ArrayFile> open_huge_imagej(std::span<const std::byte> file,
                                            const std::shared_ptr<const void>& owner,
                                            const std::string& name, const TiffPages& pages) {
  const int64_t images = imagej_images(pages.description);
  const TiffPage& page = pages.page;
  if (images <= 1 || pages.offsets.size() != 1 || page.compression != COMPRESSION_NONE ||
      page.is_tiled || page.is_planar || page.samples != 1)
    return nullptr;
  PageAxes axes = page_axes(pages.description, images, 1);
  RawLayout layout{{page.dtype, pages.is_big_endian}, axes.sizes, 0, false};
  layout.shape.insert(layout.shape.end(), {page.height, page.width});
  const auto bytes = static_cast<uint64_t>(raw_bytes(layout, name));
  if (pages.first_data > file.size() || bytes > file.size() - pages.first_data) return nullptr;
  return std::make_unique<HugeImageJ>(file.subspan(pages.first_data, bytes), owner,
                                      std::move(layout), name, axes.letters + "yx");
}

}  // namespace

std::unique_ptr<ArrayFile> parse_tiff(std::span<const std::byte> file,
                                      std::shared_ptr<const void> owner, const std::string& name) {
  auto handle = std::make_unique<TiffHandle>(file, name);
  TiffPages pages = read_pages(*handle, name);
  if (auto huge = open_huge_imagej(file, owner, name, pages)) return huge;
  return std::make_unique<TiffArray>(file, std::move(owner), name, std::move(pages),
                                     std::move(handle));
}

}  // namespace vitrail::io
