#include "vitrail/io/png.h"

#include <bit>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <png.h>

#include "vitrail/io/image_codecs.h"

namespace vitrail::io {
namespace {

/// deflate packs at most 1032 bytes into one: a file that promises more is refused before its
/// pixels are allocated.
constexpr int64_t kMaxExpansion = 1032;

/// What libpng calls back with: where the bytes come from and what went wrong.
struct PngState {
  std::span<const std::byte> unread;
  std::string* written = nullptr;
  char message[256] = "";
};

extern "C" {
[[noreturn]] void png_on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<PngState*>(png_get_error_ptr(png));
  std::snprintf(state->message, sizeof state->message, "%s", message);
  png_longjmp(png, 1);
}
void png_on_warning(png_structp, png_const_charp) {
}  // about side information: colour profiles, text
void png_on_read(png_structp png, png_bytep to, size_t bytes) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  if (bytes > state->unread.size()) png_error(png, "the file ends early");
  std::memcpy(to, state->unread.data(), bytes);
  state->unread = state->unread.subspan(bytes);
}
void png_on_write(png_structp png, png_bytep from, size_t bytes) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  bool fine = true;
  try {
    state->written->append(reinterpret_cast<const char*>(from), bytes);
  } catch (...) {  // must not pass through libpng
    fine = false;
  }
  if (!fine) png_error(png, "out of memory");
}
void png_on_flush(png_structp) {}
}

/// Runs `call`, which must own nothing: an error in libpng leaves it by longjmp. True if there was
/// none.
template <class Call>
bool guarded(png_structp png, const Call& call) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  call();
  return true;
}

class PngReader {
 public:
  PngReader(std::span<const std::byte> file, const std::string& name)
      : name_(name), file_bytes_(file.size()) {
    state_.unread = file;
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state_, png_on_error, png_on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      core::fail("[image] libpng cannot start");
    }
    const bool fine = guarded(png_, [&] {
      png_set_read_fn(png_, &state_, png_on_read);
      png_read_info(png_, info_);
    });
    if (!fine) {
      png_destroy_read_struct(&png_, &info_, nullptr);
      fail_broken();
    }
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  ImageSize size() const {
    const bool colour =
        (png_get_color_type(png_, info_) & PNG_COLOR_MASK_COLOR) != 0;  // palettes too
    return {static_cast<int>(png_get_image_width(png_, info_)),
            static_cast<int>(png_get_image_height(png_, info_)), colour ? 3 : 1};
  }

  void check_expansion() const {
    const auto promised = static_cast<int64_t>(png_get_rowbytes(png_, info_)) *
                          static_cast<int64_t>(png_get_image_height(png_, info_));
    VT_REQUIRE(DataError, promised / kMaxExpansion <= static_cast<int64_t>(file_bytes_),
               "[data] {}: broken PNG: {} bytes of pixels cannot be in a file of {} bytes", name_,
               promised, file_bytes_);
  }

  int bit_depth() const { return png_get_bit_depth(png_, info_); }

  /// Fills `size` with values of 8 bits or, of a deep image, of 16 in the machine's byte order.
  void read(const ImageSize& size, bool is_deep, uint8_t* pixels) {
    const size_t row_bytes =
        static_cast<size_t>(size.width) * static_cast<size_t>(size.channels) * (is_deep ? 2 : 1);
    bool wrong_size = false;
    const bool fine = guarded(png_, [&] {
      if (is_deep)
        png_set_swap(png_);  // PNG is big-endian
      else
        png_set_scale_16(png_);
      png_set_packing(png_);
      png_set_palette_to_rgb(png_);
      if (size.channels == 1) png_set_expand_gray_1_2_4_to_8(png_);
      png_set_strip_alpha(png_);
      const int passes = png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
      wrong_size = png_get_rowbytes(png_, info_) != row_bytes;
      if (wrong_size) return;
      for (int pass = 0; pass < passes; ++pass)
        for (int y = 0; y < size.height; ++y)
          png_read_row(png_, pixels + static_cast<size_t>(y) * row_bytes, nullptr);
      png_read_end(png_, nullptr);
    });
    if (!fine) fail_broken();
    VT_CHECK(!wrong_size, "[image] {}: rows must unpack to {} bytes", name_, row_bytes);
  }

 private:
  [[noreturn]] void fail_broken() const {
    core::fail<core::DataError>("[data] {}: broken PNG: {}", name_, state_.message);
  }

  const std::string& name_;
  size_t file_bytes_;
  PngState state_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

struct PngWriter {
  PngState state;
  png_structp png = nullptr;
  png_infop info = nullptr;

  explicit PngWriter(std::string& written) {
    state.written = &written;
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &state, png_on_error, png_on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;

  void write(const Image& image) {
    png_set_write_fn(png, &state, png_on_write, png_on_flush);
    png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
                 static_cast<png_uint_32>(image.height), 8,
                 image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    const size_t row_bytes = static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
    for (int y = 0; y < image.height; ++y)
      png_write_row(png, image.pixels.data() + static_cast<size_t>(y) * row_bytes);
    png_write_end(png, nullptr);
  }
};

}  // namespace

ImageSize png_size(std::span<const std::byte> file, const std::string& name) {
  return PngReader(file, name).size();
}

Image decode_png(std::span<const std::byte> file, const std::string& name,
                 const ImageLimits& limits) {
  PngReader reader(file, name);
  const ImageSize size = reader.size();
  check_image_size(size, name, limits);
  reader.check_expansion();
  Image image = blank_image(size);
  reader.read(size, false, image.pixels.data());
  return image;
}

bool is_deep_png(std::span<const std::byte> file) {
  constexpr size_t kBitDepth = 24;  // behind signature, chunk header, width and height
  return file.size() > kBitDepth && file[0] == std::byte{0x89} && file[1] == std::byte{'P'} &&
         file[kBitDepth] == std::byte{16};
}

DeepImage decode_deep_png(std::span<const std::byte> file, const std::string& name,
                          const ImageLimits& limits) {
  static_assert(std::endian::native == std::endian::little);
  PngReader reader(file, name);
  VT_REQUIRE(DataError, reader.bit_depth() == 16, "[data] {}: must have 16 bits a value but has {}",
             name, reader.bit_depth());
  const ImageSize size = reader.size();
  check_image_size(size, name, limits);
  reader.check_expansion();
  DeepImage image{size.width, size.height, size.channels, {}};
  image.pixels.resize(static_cast<size_t>(size.width) * static_cast<size_t>(size.height) *
                      static_cast<size_t>(size.channels));
  reader.read(size, true, reinterpret_cast<uint8_t*>(image.pixels.data()));
  return image;
}

std::string encode_png(const Image& image) {
  check_encodable(image);
  std::string written;
  PngWriter writer(written);
  VT_CHECK(writer.info != nullptr, "[image] libpng cannot start");
  const bool fine = guarded(writer.png, [&] { writer.write(image); });
  if (!fine)
    core::fail<core::DataError>("[image] cannot be written as PNG: {}", writer.state.message);
  return written;
}

}  // namespace vitrail::io
