#include "vitrail/io/tiff/tiff_pages.h"

#include <algorithm>
#include <charconv>

#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DType;

constexpr int64_t kMaxSide = int64_t{1} << 31;

/// A tag's number, or what the format says when it is absent.
template <class T>
T tag(const TiffHandle& tiff, uint32_t name, T absent) {
  T value = absent;
  if (TIFFGetFieldDefaulted(tiff.get(), name, &value) != 1) return absent;
  return value;
}

DType type_of(const TiffHandle& tiff) {
  const auto bits = tag<uint16_t>(tiff, TIFFTAG_BITSPERSAMPLE, 1);
  const auto format = tag<uint16_t>(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
  const bool is_unsigned = format == SAMPLEFORMAT_UINT || format == SAMPLEFORMAT_VOID;
  const int kind = is_unsigned ? 0 : format == SAMPLEFORMAT_INT ? 1 : 2;
  if (kind == 0 || format == SAMPLEFORMAT_INT) switch (bits) {
      case 8:
        return kind == 0 ? DType::u8 : DType::i8;
      case 16:
        return kind == 0 ? DType::u16 : DType::i16;
      case 32:
        return kind == 0 ? DType::u32 : DType::i32;
      case 64:
        return kind == 0 ? DType::u64 : DType::i64;
      default:
        break;
    }
  if (format == SAMPLEFORMAT_IEEEFP && bits == 16) return DType::f16;
  if (format == SAMPLEFORMAT_IEEEFP && bits == 32) return DType::f32;
  if (format == SAMPLEFORMAT_IEEEFP && bits == 64) return DType::f64;
  tiff.fail(fmt::format(
      "TIFF values must be integers of 8, 16, 32 or 64 bits or floats of 16, 32 or 64 but have {} "
      "bits of sample format {}",
      bits, format));
}

/// YCbCr comes out as RGB where libtiff turns it, from JPEG; elsewhere it would be taken for RGB.
void choose_colours(const TiffHandle& tiff, uint16_t compression) {
  const auto photometric = tag<uint16_t>(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
  if (photometric != PHOTOMETRIC_YCBCR) return;
  if (compression != COMPRESSION_JPEG)
    tiff.fail("TIFF of YCbCr colours is read with JPEG compression only");
  TIFFSetField(tiff.get(), TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
}

TiffPage read_page(const TiffHandle& tiff) {
  TiffPage page;
  page.width = tag<uint32_t>(tiff, TIFFTAG_IMAGEWIDTH, 0);
  page.height = tag<uint32_t>(tiff, TIFFTAG_IMAGELENGTH, 0);
  page.samples = tag<uint16_t>(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
  page.compression = tag<uint16_t>(tiff, TIFFTAG_COMPRESSION, COMPRESSION_NONE);
  page.has_reversed_bits =
      tag<uint16_t>(tiff, TIFFTAG_FILLORDER, FILLORDER_MSB2LSB) != FILLORDER_MSB2LSB;
  page.dtype = type_of(tiff);
  if (TIFFIsCODECConfigured(page.compression) == 0)
    tiff.fail(
        fmt::format("TIFF compression {} is not one that this libtiff knows", page.compression));
  choose_colours(tiff, page.compression);
  page.is_planar = page.samples > 1 && tag<uint16_t>(tiff, TIFFTAG_PLANARCONFIG,
                                                     PLANARCONFIG_CONTIG) == PLANARCONFIG_SEPARATE;
  page.is_tiled = TIFFIsTiled(tiff.get()) != 0;
  if (page.is_tiled) {
    page.piece_width = tag<uint32_t>(tiff, TIFFTAG_TILEWIDTH, 0);
    page.piece_height = tag<uint32_t>(tiff, TIFFTAG_TILELENGTH, 0);
  } else {
    page.piece_width = page.width;
    page.piece_height =
        std::min<int64_t>(tag<uint32_t>(tiff, TIFFTAG_ROWSPERSTRIP, 0xFFFFFFFF), page.height);
  }
  const bool has_sides = page.width > 0 && page.height > 0 && page.samples > 0 &&
                         page.piece_width > 0 && page.piece_height > 0 && page.width < kMaxSide &&
                         page.height < kMaxSide;
  tiff.require(has_sides, "its sides must be above zero");
  return page;
}

std::string text_of(const TiffHandle& tiff, uint32_t name) {
  const char* text = nullptr;
  if (TIFFGetField(tiff.get(), name, &text) != 1 || text == nullptr) return "";
  return text;
}

bool is_smaller_copy(const TiffHandle& tiff) {
  uint32_t type = 0;
  return TIFFGetField(tiff.get(), TIFFTAG_SUBFILETYPE, &type) == 1 &&
         (type & FILETYPE_REDUCEDIMAGE) != 0;
}

uint64_t first_strip(const TiffHandle& tiff) {
  if (TIFFIsTiled(tiff.get()) != 0) return 0;
  return TIFFGetStrileOffset(tiff.get(), 0);
}

/// The whole number behind `key` in a description; 0 when it is not there.
int64_t number_after(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  if (at == std::string::npos) return 0;
  const char* first = text.data() + at + key.size();
  int64_t value = 0;
  std::from_chars(first, text.data() + text.size(), value);
  return value;
}

bool is_imagej(const std::string& description) { return description.starts_with("ImageJ="); }

bool add_axis(PageAxes& axes, char letter, int64_t size, int64_t& pages) {
  if (size < 1 || pages % size != 0) return false;
  pages /= size;
  if (size == 1) return true;
  axes.letters += letter;
  axes.sizes.push_back(size);
  return true;
}

/// ImageJ: frames, slices, channels, the last fastest.
bool imagej_axes(const std::string& description, int64_t pages, int64_t samples, PageAxes& axes) {
  const auto size = [&](const char* key) {
    return std::max<int64_t>(number_after(description, key), 1);
  };
  const int64_t channels = size("\nchannels=");
  return add_axis(axes, 't', size("\nframes="), pages) &&
         add_axis(axes, 'z', size("\nslices="), pages) &&
         add_axis(axes, 'c', samples > 1 && pages == 1 ? 1 : channels, pages) && pages == 1;
}

/// OME: DimensionOrder="XYCZT", the first fastest; SizeC counts the samples of a pixel too.
bool ome_axes(const std::string& description, int64_t pages, int64_t samples, PageAxes& axes) {
  const size_t at = description.find("DimensionOrder=\"XY");
  if (at == std::string::npos || at + 21 > description.size()) return false;
  const std::string order = description.substr(at + 18, 3);
  for (size_t k = 3; k-- > 0;) {
    const std::string size = fmt::format("Size{}=\"", order[k]);
    const int64_t n = number_after(description, size) / (order[k] == 'C' ? samples : 1);
    if (!add_axis(axes, static_cast<char>(order[k] - 'A' + 'a'), n, pages)) return false;
  }
  return pages == 1;
}

}  // namespace

TiffPages read_pages(TiffHandle& tiff, const std::string& name) {
  TiffPages pages;
  pages.is_big_endian = TIFFIsBigEndian(tiff.get()) != 0;
  do {
    if (!pages.offsets.empty() && is_smaller_copy(tiff)) continue;
    const TiffPage page = read_page(tiff);
    if (pages.offsets.empty()) {
      pages.page = page;
      pages.description = text_of(tiff, TIFFTAG_IMAGEDESCRIPTION);
      pages.first_data = first_strip(tiff);
    }
    VT_REQUIRE(DataError, page == pages.page,
               "[data] {}: pages of a TIFF file must be alike but page {} is {} x {} x {} {} and "
               "the first {} x {} x {} {}; save the pages in files of their own",
               name, pages.offsets.size(), page.height, page.width, page.samples,
               core::name(page.dtype), pages.page.height, pages.page.width, pages.page.samples,
               core::name(pages.page.dtype));
    pages.offsets.push_back(TIFFCurrentDirOffset(tiff.get()));
    tiff.message.clear();
  } while (TIFFReadDirectory(tiff.get()) == 1);
  // The end of the list is no error; a page that cannot be read is.
  if (!tiff.message.empty()) tiff.require(false, "a page cannot be read");
  return pages;
}

int64_t imagej_images(const std::string& description) {
  return is_imagej(description) ? number_after(description, "\nimages=") : 0;
}

PageAxes page_axes(const std::string& description, int64_t pages, int64_t samples) {
  PageAxes named;
  if (is_imagej(description) && imagej_axes(description, pages, samples, named)) return named;
  named = {};
  if (ome_axes(description, pages, samples, named)) return named;
  return pages == 1 ? PageAxes{} : PageAxes{"z", {pages}};
}

}  // namespace vitrail::io
