#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// libjpeg's header needs stdio first.
#include <jerror.h>
#include <jpeglib.h>

#include "vitrail/io/image_codecs.h"

namespace vitrail::io {
namespace {

/// A progressive file of a few kilobytes may hold thousands of passes over the whole image; real
/// ones have about ten.
constexpr int kMaxScans = 100;

/// libjpeg reports by calling back and must not return from an error: we jump to the last
/// guarded().
struct JpegErrors {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer is ours
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
};

/// Warnings about things beside the pixels, or that leave no doubt about them. All others mean lost
/// data.
bool is_harmless(int warning) {
  return warning == JWRN_EXTRANEOUS_DATA || warning == JWRN_ADOBE_XFORM ||
         warning == JWRN_NOT_SEQUENTIAL || warning == JWRN_JFIF_MAJOR || warning == JWRN_BOGUS_ICC;
}

extern "C" {
void jpeg_on_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->jump, 1);
}
void jpeg_on_message(j_common_ptr info, int level) {
  if (level < 0 && !is_harmless(info->err->msg_code)) jpeg_on_error(info);
}
void jpeg_on_progress(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  if (!info->is_decompressor ||
      reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans)
    return;
  std::snprintf(errors->message, sizeof errors->message, "more than %d scans", kMaxScans);
  std::longjmp(errors->jump, 1);
}
}

jpeg_error_mgr* prepare(JpegErrors& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_on_error;
  errors.base.emit_message = jpeg_on_message;
  return &errors.base;
}

/// Runs `call`, which must own nothing: an error in libjpeg leaves it by longjmp. True if there was
/// none.
template <class Call>
bool guarded(JpegErrors& errors, const Call& call) {
  if (setjmp(errors.jump) != 0) return false;
  call();
  return true;
}

class JpegReader {
 public:
  JpegReader(std::span<const std::byte> file, const std::string& name)
      : name_(name), file_bytes_(static_cast<int64_t>(file.size())) {
    info_.err = prepare(errors_);
    info_.client_data = nullptr;
    const bool fine = guarded(errors_, [&] {
      jpeg_create_decompress(&info_);
      progress_.progress_monitor = jpeg_on_progress;
      info_.progress = &progress_;
      jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(file.data()), file.size());
      jpeg_read_header(&info_, TRUE);
    });
    if (!fine) fail_after_cleaning();
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  ImageSize size() const {
    const int components = info_.num_components;
    VT_REQUIRE(DataError, components == 1 || components == 3,
               "[data] {}: must be a grey or RGB JPEG but has {} components{}; convert it to RGB",
               name_, components, components == 4 ? " (CMYK)" : "");
    return {static_cast<int>(info_.image_width), static_cast<int>(info_.image_height), components};
  }

  /// throws   DataError when the file is too short for its sides, before anything is allocated by
  ///          them: Huffman coding spends a bit or more on each block of 8 x 8 values.
  void check_expansion() const {
    // Arithmetic coding may spend less; no file of an image comes near this.
    const int64_t blocks_per_byte = info_.arith_code ? 512 : 8;
    int64_t blocks = 0;
    for (int c = 0; c < info_.num_components; ++c)
      blocks += int64_t{info_.comp_info[c].width_in_blocks} * info_.comp_info[c].height_in_blocks;
    VT_REQUIRE(DataError, blocks / blocks_per_byte <= file_bytes_,
               "[data] {}: broken JPEG: {} blocks of pixels cannot be in a file of {} bytes", name_,
               blocks, file_bytes_);
  }

  void read(Image& image) {
    info_.out_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    uint8_t* const pixels = image.pixels.data();
    const size_t row_bytes = static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
    const bool fine = guarded(errors_, [&] {
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) {
        JSAMPROW row = pixels + info_.output_scanline * row_bytes;
        jpeg_read_scanlines(&info_, &row, 1);
      }
      jpeg_finish_decompress(&info_);
    });
    if (!fine) core::fail<core::DataError>("[data] {}: broken JPEG: {}", name_, errors_.message);
  }

  /// The part that begins at (x, y) with the sides of `image`.
  void read_box(Image& image, int x, int y) {
    info_.out_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    uint8_t* to = image.pixels.data();
    const auto pixel = static_cast<size_t>(image.channels);
    const size_t row_bytes = static_cast<size_t>(image.width) * pixel;
    // At the edges of what is decoded colours are interpolated as at the edges of the image: a block
    // beyond the part on either side keeps that out of it.
    const int margin = 2 * DCTSIZE * MAX_SAMP_FACTOR / 2;
    const int left = std::max(x - margin, 0);
    const int right = std::min(x + image.width + margin, static_cast<int>(info_.image_width));
    JDIMENSION first = static_cast<JDIMENSION>(left), width = static_cast<JDIMENSION>(right - left);
    std::vector<uint8_t> row(static_cast<size_t>(info_.image_width) * pixel);
    JSAMPROW at = row.data();
    const bool fine = guarded(errors_, [&] {
      jpeg_start_decompress(&info_);
      jpeg_crop_scanline(&info_, &first, &width);
      if (y > 0) jpeg_skip_scanlines(&info_, static_cast<JDIMENSION>(y));
      for (int i = 0; i < image.height; ++i, to += row_bytes) {
        jpeg_read_scanlines(&info_, &at, 1);
        std::memcpy(to, at + (static_cast<size_t>(x) - first) * pixel, row_bytes);
      }
    });
    if (!fine) core::fail<core::DataError>("[data] {}: broken JPEG: {}", name_, errors_.message);
  }

 private:
  [[noreturn]] void fail_after_cleaning() {
    jpeg_destroy_decompress(&info_);
    core::fail<core::DataError>("[data] {}: broken JPEG: {}", name_, errors_.message);
  }

  const std::string& name_;
  int64_t file_bytes_;
  JpegErrors errors_;
  jpeg_progress_mgr progress_{};
  jpeg_decompress_struct info_{};
};

/// Owns what libjpeg allocates while it encodes.
struct JpegWriter {
  JpegErrors errors;
  jpeg_compress_struct info{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;

  JpegWriter() { info.err = prepare(errors); }
  ~JpegWriter() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;

  void write(const Image& image, int quality) {
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &bytes, &size);
    info.image_width = static_cast<JDIMENSION>(image.width);
    info.image_height = static_cast<JDIMENSION>(image.height);
    info.input_components = image.channels;
    info.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, quality, TRUE);
    jpeg_start_compress(&info, TRUE);
    const size_t row_bytes = static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
    while (info.next_scanline < info.image_height) {
      JSAMPROW row = const_cast<uint8_t*>(image.pixels.data()) + info.next_scanline * row_bytes;
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
  }
};

}  // namespace

ImageSize jpeg_size(std::span<const std::byte> file, const std::string& name) {
  return JpegReader(file, name).size();
}

Image decode_jpeg(std::span<const std::byte> file, const std::string& name,
                  const ImageLimits& limits) {
  JpegReader reader(file, name);
  const ImageSize size = reader.size();
  check_image_size(size, name, limits);
  reader.check_expansion();
  Image image = blank_image(size);
  reader.read(image);
  return image;
}

Image decode_jpeg_box(std::span<const std::byte> file, const std::string& name, const ImageBox& box,
                      const ImageLimits& limits) {
  JpegReader reader(file, name);
  const ImageSize size = reader.size();
  check_image_size(size, name, limits);
  check_image_box(size, box, name);
  reader.check_expansion();
  Image image = blank_image({box.width, box.height, size.channels});
  reader.read_box(image, box.x, box.y);
  return image;
}

std::string encode_jpeg(const Image& image, int quality) {
  check_encodable(image);
  VT_CHECK(quality >= 1 && quality <= 100, "[image] JPEG quality must be 1 to 100 but got {}",
           quality);
  JpegWriter writer;
  const bool fine = guarded(writer.errors, [&] { writer.write(image, quality); });
  if (!fine)
    core::fail<core::DataError>("[image] cannot be written as JPEG: {}", writer.errors.message);
  return {reinterpret_cast<const char*>(writer.bytes), writer.size};
}

}  // namespace vitrail::io
