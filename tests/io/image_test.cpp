#include "vitrail/io/image.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// libjpeg's header needs stdio first.
#include <jpeglib.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/io/npy.h"
#include "vitrail/io/png.h"

namespace vitrail::io {
namespace {

using core::DataError;
using testing::as_bytes;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

/// Smooth ramps: JPEG keeps them.
Image ramp(int width, int height, int channels) {
  Image image{width, height, channels, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        image.pixels.push_back(static_cast<uint8_t>(x * 3 + y * 2 + c * 40));
  return image;
}

int largest_difference(const Image& image, const uint8_t* other) {
  int worst = 0;
  for (size_t i = 0; i < image.pixels.size(); ++i)
    worst =
        std::max(worst, std::abs(static_cast<int>(image.pixels[i]) - static_cast<int>(other[i])));
  return worst;
}

Image decode(const std::string& file, const ImageLimits& limits = {}) {
  return decode_image(as_bytes(file), "fuzzed", limits);
}

TEST(Image, PngKeepsEveryPixel) {
  for (const int channels : {1, 3})
    for (const auto& [width, height] : {std::pair(1, 1), {7, 5}, {64, 33}, {300, 2}}) {
      const Image image = ramp(width, height, channels);
      const Image again = decode(encode_png(image));
      EXPECT_EQ(again.width, width);
      EXPECT_EQ(again.height, height);
      EXPECT_EQ(again.channels, channels);
      EXPECT_EQ(again.pixels, image.pixels);
    }
}

TEST(Image, JpegKeepsSmoothPixelsNearly) {
  for (const int channels : {1, 3}) {
    const Image image = ramp(40, 30, channels);
    const Image again = decode(encode_jpeg(image, 100));
    ASSERT_EQ(again.pixels.size(), image.pixels.size());
    const int worst = largest_difference(again, image.pixels.data());
    // Rounding of the transform and, for RGB, of two colour conversions: one step each. Worst seen
    // 0 and 1.
    std::printf("JPEG quality 100, %d channels: largest difference %d\n", channels, worst);
    EXPECT_LE(worst, channels == 1 ? 1 : 3);
    EXPECT_LT(encode_jpeg(image, 20).size(), encode_jpeg(image, 95).size());
  }
}

TEST(Image, SizeComesFromTheHeaderAlone) {
  const std::string png = encode_png(ramp(20, 10, 3)), jpeg = encode_jpeg(ramp(21, 11, 1));
  const ImageSize first = image_size(as_bytes(png.substr(0, png.size() - 30)), "a");
  EXPECT_EQ(std::tuple(first.width, first.height, first.channels), std::tuple(20, 10, 3));
  const ImageSize second = image_size(as_bytes(jpeg.substr(0, jpeg.size() - 30)), "a");
  EXPECT_EQ(std::tuple(second.width, second.height, second.channels), std::tuple(21, 11, 1));
}

TEST(Image, KindIsSeenInTheBytesNotInTheName) {
  const TempFolder folder;
  core::write_file_atomic(folder.file("a.jpg"), encode_png(ramp(4, 4, 3)));
  EXPECT_EQ(read_image(folder.file("a.jpg")).pixels, ramp(4, 4, 3).pixels);
}

TEST(Image, NamesTheFileThatIsNoImage) {
  const TempFolder folder;
  core::write_file_atomic(folder.file("a.jpg"), "<html>");
  core::write_file_atomic(folder.file("b.jpg"), "");
  EXPECT_THAT(message_of<DataError>([&] { read_image(folder.file("a.jpg")); }),
              HasSubstr(folder.file("a.jpg") +
                        ": must be a JPEG or PNG image but starts with other bytes"));
  EXPECT_THAT(message_of<DataError>([&] { read_image(folder.file("b.jpg")); }),
              HasSubstr("is empty"));
  EXPECT_THAT(message_of<DataError>([&] { read_image(folder.file("c.jpg")); }),
              HasSubstr("No such file"));
}

TEST(Image, LimitsAreCheckedBeforeAnythingIsAllocated) {
  for (const std::string& file : {encode_png(ramp(20, 10, 3)), encode_jpeg(ramp(20, 10, 3))}) {
    EXPECT_EQ(decode(file, {.max_pixels = 200}).width, 20);
    EXPECT_THAT(message_of<DataError>([&] { decode(file, {.max_pixels = 199}); }),
                HasSubstr("must have 1 to 199 pixels but got 20 x 10"));
    EXPECT_THROW(image_size(as_bytes(file), "a", {.max_pixels = 199}), DataError);
  }
}

TEST(Image, TruncationIsAnErrorThatQuotesTheCodec) {
  for (const std::string& file : {encode_png(ramp(40, 30, 3)), encode_jpeg(ramp(40, 30, 3))})
    for (size_t length = 0; length < file.size(); ++length)
      ASSERT_THROW(decode(file.substr(0, length)), DataError) << length << " of " << file.size();
  const std::string jpeg = encode_jpeg(ramp(40, 30, 3)), png = encode_png(ramp(40, 30, 3));
  EXPECT_THAT(message_of<DataError>([&] { decode(jpeg.substr(0, jpeg.size() / 2)); }),
              HasSubstr("[data] fuzzed: broken JPEG: Premature end"));
  EXPECT_THAT(message_of<DataError>([&] { decode(jpeg.substr(0, jpeg.size() - 40)); }),
              HasSubstr("Premature end"));
  EXPECT_THAT(message_of<DataError>([&] { decode(png.substr(0, png.size() / 2)); }),
              HasSubstr("[data] fuzzed: broken PNG: the file ends early"));
}

TEST(Image, DamageInPngPixelsIsNoticed) {
  const std::string png = encode_png(ramp(40, 30, 3));
  const auto flipped = [&](size_t at) {
    std::string copy = png;
    copy[at] = static_cast<char>(copy[at] ^ 1);
    return message_of<DataError>([&] { decode(copy); });
  };
  EXPECT_THAT(flipped(png.size() / 2), HasSubstr("broken PNG: IDAT"));
  const size_t end_chunk = 12;
  EXPECT_THAT(flipped(png.size() - end_chunk - 1), HasSubstr("CRC error"));
}

TEST(Image, EncodersRefuseWhatDoesNotFitTogether) {
  Image image = ramp(4, 4, 3);
  image.width = 5;
  EXPECT_THROW(encode_png(image), core::Error);
  EXPECT_THROW(encode_jpeg(image), core::Error);
  EXPECT_THROW(encode_png(Image{}), core::Error);
  EXPECT_THROW(encode_jpeg(ramp(4, 4, 3), 0), core::Error);
  EXPECT_THROW(encode_jpeg(ramp(70'000, 1, 1)), core::Error);
}

/// Writes images of every kind, and beside each what Pillow makes of it (16 bits: the formula).
constexpr const char* kMakeImages = R"(
import struct, zlib
import numpy as np
from PIL import Image
rng = np.random.default_rng(3)
y, x = np.mgrid[0:45, 0:61]
smooth = np.stack([x * 4, y * 5, 255 - x * 2 - y], -1).clip(0, 255).astype(np.uint8)
photo = (smooth // 2 + rng.integers(0, 120, smooth.shape)).astype(np.uint8)
names = []
def keep(name, pixels):
    np.save(name + ".npy", np.ascontiguousarray(pixels)); names.append(name)
def by_pillow(name, mode):
    keep(name, np.asarray(Image.open(name).convert(mode)))
for n, pixels in (("smooth", smooth), ("photo", photo)):
    im = Image.fromarray(pixels)
    for sampling in (0, 1, 2):
        for q in (50, 95):
            for p in (False, True):
                f = f"{n}-{sampling}-{q}-{p}.jpg"; im.save(f, quality=q, subsampling=sampling, progressive=p); by_pillow(f, "RGB")
    im.convert("L").save(f"{n}-grey.jpg"); by_pillow(f"{n}-grey.jpg", "L")
    im.save(f"{n}-rgb.png"); by_pillow(f"{n}-rgb.png", "RGB")
    im.convert("L").save(f"{n}-grey.png"); by_pillow(f"{n}-grey.png", "L")
    im.convert("1").save(f"{n}-one-bit.png"); by_pillow(f"{n}-one-bit.png", "L")
    for colors in (2, 4, 16, 256):
        im.quantize(colors).save(f"{n}-palette-{colors}.png"); by_pillow(f"{n}-palette-{colors}.png", "RGB")
    im.quantize(16).save(f"{n}-palette-clear.png", transparency=3); keep(f"{n}-palette-clear.png", np.asarray(im.quantize(16).convert("RGB")))
    rgba = im.convert("RGBA"); rgba.putalpha(im.convert("L")); rgba.save(f"{n}-rgba.png"); keep(f"{n}-rgba.png", pixels)
    la = rgba.convert("LA"); la.save(f"{n}-la.png"); keep(f"{n}-la.png", np.asarray(la)[..., 0])
    rgb_clear = im.copy(); rgb_clear.save(f"{n}-rgb-clear.png", transparency=tuple(int(v) for v in pixels[0, 0])); keep(f"{n}-rgb-clear.png", pixels)
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(name, pixels, bits, colour, interlaced):
    h, w = pixels.shape[:2]; raw = b""
    passes = [(0,0,8,8),(4,0,8,8),(0,4,4,8),(2,0,4,4),(0,2,2,4),(1,0,2,2),(0,1,1,2)] if interlaced else [(0,0,1,1)]
    for x0, y0, dx, dy in passes:
        part = pixels[y0::dy, x0::dx]
        if part.size:
            for row in part: raw += b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes()
    open(name, "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, interlaced))
                           + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
wide = rng.integers(0, 65536, (33, 29, 3)).astype(np.uint16)
down = lambda v: ((v.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
for i in (0, 1):
    png(f"wide-{i}.png", wide, 16, 2, i); keep(f"wide-{i}.png", down(wide))
    png(f"wide-grey-{i}.png", wide[..., 0], 16, 0, i); keep(f"wide-grey-{i}.png", down(wide[..., 0]))
    png(f"woven-{i}.png", photo, 8, 2, i); by_pillow(f"woven-{i}.png", "RGB")
Image.fromarray(photo).convert("CMYK").save("cmyk.jpg")
print(" ".join(names))
)";

TEST(Image, EqualsPillowForEveryKindOfFile) {
  const TempFolder folder;
  std::istringstream names(testing::run_python(folder.path(), kMakeImages));
  std::string name;
  int files = 0, worst_jpeg = 0;
  while (names >> name) {
    ASSERT_NE(name, "Traceback") << names.str();
    const Image image = read_image(folder.file(name));
    const NpyFile expected = NpyFile::open(folder.file(name + ".npy"));
    ASSERT_EQ(image.height, expected.shape().at(0)) << name;
    ASSERT_EQ(image.width, expected.shape().at(1)) << name;
    ASSERT_EQ(image.channels, expected.shape().size() == 2 ? 1 : expected.shape()[2]) << name;
    ASSERT_EQ(image.pixels.size(), expected.bytes().size()) << name;
    const int worst =
        largest_difference(image, reinterpret_cast<const uint8_t*>(expected.bytes().data()));
    const bool is_jpeg = name.ends_with(".jpg");
    // Both are libjpeg-turbo with its default transform (islow); another version or processor may
    // round the smoothed chroma otherwise, by one step a channel and so two in RGB.
    EXPECT_LE(worst, is_jpeg ? 2 : 0) << name;
    if (is_jpeg) worst_jpeg = std::max(worst_jpeg, worst);
    ++files;
  }
  std::printf("%d files; largest difference of JPEG from Pillow %d (bound 2), of PNG 0\n", files,
              worst_jpeg);
  EXPECT_EQ(files, 2 * (12 + 12) + 6);
  EXPECT_THAT(message_of<DataError>([&] { read_image(folder.file("cmyk.jpg")); }),
              HasSubstr("CMYK"));
}

TEST(Image, PngOfSixteenBitsKeepsAllOfThem) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), std::string(kMakeImages) + R"(
grey = wide[..., 0]
Image.fromarray(grey).save("pillow.png")  # mode I;16
np.save("pillow.png.deep.npy", np.asarray(Image.open("pillow.png")).astype(np.uint16))
assert (np.asarray(Image.open("pillow.png")) == grey).all()
for i in (0, 1):
    np.save(f"wide-{i}.png.deep.npy", wide); np.save(f"wide-grey-{i}.png.deep.npy", grey)
    alpha = rng.integers(0, 65536, grey.shape).astype(np.uint16)
    png(f"wide-rgba-{i}.png", np.dstack([wide, alpha]), 16, 6, i); np.save(f"wide-rgba-{i}.png.deep.npy", wide)
    png(f"wide-la-{i}.png", np.dstack([grey, alpha]), 16, 4, i); np.save(f"wide-la-{i}.png.deep.npy", grey)
)");
  ASSERT_EQ(said.find("Traceback"), std::string::npos) << said;
  int files = 0;
  for (const char* name : {"pillow", "wide-0", "wide-1", "wide-grey-0", "wide-grey-1",
                           "wide-rgba-0", "wide-rgba-1", "wide-la-0", "wide-la-1"}) {
    const std::string path = folder.file(std::string(name) + ".png");
    const std::string file = core::read_file(path, 1 << 20);
    ASSERT_TRUE(is_deep_png(as_bytes(file))) << name;
    const DeepImage image = decode_deep_png(as_bytes(file), path);
    const NpyFile expected = NpyFile::open(path + ".deep.npy");
    ASSERT_EQ(image.height, expected.shape().at(0)) << name;
    ASSERT_EQ(image.channels, expected.shape().size() == 2 ? 1 : 3) << name;
    ASSERT_EQ(2 * image.pixels.size(), expected.bytes().size()) << name;
    EXPECT_EQ(std::memcmp(image.pixels.data(), expected.bytes().data(), expected.bytes().size()), 0)
        << name;
    ++files;
  }
  std::printf("%d files of 16 bits equal, bit for bit\n", files);
  const std::string flat = core::read_file(folder.file("photo-rgb.png"), 1 << 20);
  EXPECT_FALSE(is_deep_png(as_bytes(flat)));
  EXPECT_THAT(message_of<DataError>([&] { decode_deep_png(as_bytes(flat), "flat.png"); }),
              HasSubstr("16 bits"));
}

TEST(Image, PillowReadsWhatWeWrote) {
  const TempFolder folder;
  const Image image = ramp(31, 17, 3), grey = ramp(31, 17, 1);
  core::write_file_atomic(folder.file("rgb.png"), encode_png(image));
  core::write_file_atomic(folder.file("grey.png"), encode_png(grey));
  core::write_file_atomic(folder.file("rgb.jpg"), encode_jpeg(image, 95));
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
from PIL import Image
y, x, c = np.mgrid[0:17, 0:31, 0:3]
want = (x * 3 + y * 2 + c * 40).astype(np.uint8)
assert (np.asarray(Image.open("rgb.png")) == want).all()
assert Image.open("grey.png").mode == "L" and (np.asarray(Image.open("grey.png")) == want[..., 0]).all()
assert abs(np.asarray(Image.open("rgb.jpg")).astype(int) - want).max() < 12  # quality 95
print("fine")
)");
  EXPECT_EQ(said, "fine\n");
}

TEST(Image, APngThatPromisesMorePixelsThanItCanHoldIsRefused) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import struct, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
open("bomb.png", "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0))
                             + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
)");
  ASSERT_EQ(said, "");
  EXPECT_THAT(message_of<DataError>([&] { read_image(folder.file("bomb.png")); }),
              HasSubstr("cannot be in a file of"));
}

/// A progressive grey JPEG of `scans` <= 127 passes: each coefficient alone, then each refined.
std::string many_scans(int scans) {
  std::vector<jpeg_scan_info> script = {{1, {0, 0, 0, 0}, 0, 0, 0, 0}};
  for (int k = 1; k < 64; ++k) script.push_back({1, {0, 0, 0, 0}, k, k, 0, 1});
  for (int k = 1; k < 64; ++k) script.push_back({1, {0, 0, 0, 0}, k, k, 1, 0});
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = info.image_height = 16;
  info.input_components = 1;
  info.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&info);
  info.scan_info = script.data();
  info.num_scans = scans;
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(16, 77);
  JSAMPROW rows[] = {row.data()};
  while (info.next_scanline < 16) jpeg_write_scanlines(&info, rows, 1);
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const std::string file(reinterpret_cast<const char*>(bytes), size);
  std::free(bytes);
  return file;
}

TEST(Image, AJpegOfEndlessPassesIsRefused) {
  EXPECT_EQ(decode(many_scans(90)).width, 16);
  EXPECT_THAT(message_of<DataError>([] { decode(many_scans(127)); }),
              HasSubstr("more than 100 scans"));
}

TEST(Image, SurvivesThousandsOfDamagedFiles) {
  const ImageLimits small{.max_pixels = 100'000};
  const auto read = [&](std::span<const std::byte> bytes) {
    const Image image = decode_image(bytes, "fuzzed", small);
    ASSERT_EQ(image.pixels.size(), static_cast<size_t>(image.width) *
                                       static_cast<size_t>(image.height) *
                                       static_cast<size_t>(image.channels));
  };
  for (const std::string& file : {encode_png(ramp(24, 18, 3)), encode_jpeg(ramp(24, 18, 3)),
                                  encode_jpeg(ramp(24, 18, 1)), many_scans(90)})
    EXPECT_GT(testing::fuzz<DataError>(file, 5'000, read).refused, 2'500);
}

}  // namespace
}  // namespace vitrail::io
