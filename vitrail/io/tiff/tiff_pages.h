#pragma once
/// What the pages of a TIFF file say of its array; part of io/tiff.h.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <tiffio.h>

#include "vitrail/core/dtype.h"

namespace vitrail::io {

/// libtiff over a file in memory. Not for several threads at once.
class TiffHandle {
 public:
  TiffHandle(std::span<const std::byte> file, const std::string& name);
  ~TiffHandle();
  TiffHandle(const TiffHandle&) = delete;
  TiffHandle& operator=(const TiffHandle&) = delete;

  TIFF* get() const { return tiff_; }
  [[noreturn]] void fail(const std::string& what) const;
  /// throws   DataError with libtiff's words unless `fine`.
  void require(bool fine, const char* what) const;

  // Behind libtiff's callbacks.
  std::span<const std::byte> file;
  uint64_t at = 0;
  std::string message;

 private:
  std::string name_;
  TIFF* tiff_ = nullptr;
};

/// The geometry and type that all pages share.
struct TiffPage {
  int64_t width = 0, height = 0, samples = 1;
  core::DType dtype = core::DType::u8;
  bool is_tiled = false;
  bool is_planar = false;                     // samples lie apart
  int64_t piece_height = 0, piece_width = 0;  // of a strip or tile
  uint16_t compression = 0;
  bool has_reversed_bits = false;

  bool operator==(const TiffPage&) const = default;
};

struct TiffPages {
  TiffPage page;
  std::vector<uint64_t> offsets;  // of the directories
  std::string description;        // of the first page
  uint64_t first_data = 0;        // where the first strip's bytes lie
  bool is_big_endian = false;
};

/// Walks over all pages. throws   DataError: pages that differ, types that are not read.
TiffPages read_pages(TiffHandle& tiff, const std::string& name);

/// Axes of the pages, slowest first: a letter and a length each.
struct PageAxes {
  std::string letters;
  std::vector<int64_t> sizes;
};

/// As ImageJ or OME name them in the first page's description; else z. Axes of length 1 are left
/// out. `pages` is the number of pages; `samples` of a pixel.
PageAxes page_axes(const std::string& description, int64_t pages, int64_t samples);

/// The number of images that ImageJ's description tells of; 0 = it is another's. ImageJ writes
/// stacks above 4 GiB with one directory only.
int64_t imagej_images(const std::string& description);

}  // namespace vitrail::io
