#include "vitrail/io/tiff.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/io/arrays.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using testing::as_bytes;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

TEST(Tiff, EqualsTifffileOverTypesCompressionsPagesAndPlanes) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
import tifffile
rng = np.random.default_rng(3)
n = 0
def put(array, axes, **options):
    global n
    name = f"{n}.tif"; n += 1
    tifffile.imwrite(name, array, metadata=None, **options)
    read = tifffile.imread(name)
    assert read.shape == array.shape and (read == array).all()
    keep(name, array, axes)
packings = [(None, None), ("zlib", None), ("zlib", 2), ("lzma", None)]
for t in "u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8".split():
    for k, (compression, predictor) in enumerate(packings):
        if predictor and t[0] == "f": continue
        for order in "<>":
            for pages in (1, 3):
                shape = (pages, 37, 45) if pages > 1 else (37, 45)
                a = (rng.standard_normal(shape) * 100).astype(t)
                how = [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}][(n + pages) % 3]
                put(a, "zyx" if pages > 1 else "yx", byteorder=order, bigtiff=n % 2 == 0,
                    photometric="minisblack", compression=compression, predictor=predictor, **how)
for t in ("u1", "u2", "f4"):
    for samples in (2, 3, 4):
        for pages in (1, 3):
            for planar in ("contig", "separate"):
                for how in ({"rowsperstrip": 7}, {"tile": (16, 16)}):
                    for compression in (None, "zlib"):
                        shape = (37, 45, samples) if planar == "contig" else (samples, 37, 45)
                        axes = "yxc" if planar == "contig" else "cyx"
                        if pages > 1: shape = (pages,) + shape; axes = "z" + axes
                        a = (rng.standard_normal(shape) * 100).astype(t)
                        put(a, axes, photometric="rgb" if samples == 3 else "minisblack",
                            planarconfig=planar, compression=compression, **how)
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 8u * 4 * 2 * 2 + 3u * 3 * 2 * 2 + 3u * 3 * 2 * 2 * 2 * 2) << said;
  int boxes = 0;
  for (const testing::ExpectedArray& e : all)
    boxes += expect_array(*open_tiff(folder.file(e.name)), e, folder);
  std::printf("%zu files and %d boxes equal tifffile's bit for bit\n", all.size(), boxes);
}

TEST(Tiff, EqualsPillowForItsCompressions) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
from PIL import Image
rng = np.random.default_rng(3)
photo = rng.integers(0, 256, (45, 61, 3)).astype(np.uint8)
for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "jpeg"):
    name = compression + ".tif"
    Image.fromarray(photo).save(name, compression=compression)
    keep(name, np.asarray(Image.open(name).convert("RGB")), "yxc")
    Image.fromarray(photo[..., 0]).save("grey-" + name, compression=compression)
    keep("grey-" + name, np.asarray(Image.open("grey-" + name)), "yx")
Image.fromarray(photo[..., 0]).save("pages.tif", compression="tiff_lzw", save_all=True,
    append_images=[Image.fromarray(photo[..., k]) for k in (1, 2)])
keep("pages.tif", photo.transpose(2, 0, 1), "zyx")
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 13u) << said;
  for (const testing::ExpectedArray& e : all)
    expect_array(*open_tiff(folder.file(e.name)), e, folder);
}

TEST(Tiff, ImageJAndOmeNameTheAxesOfTheirPages) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
import tifffile
rng = np.random.default_rng(3)
def data(*shape): return rng.integers(0, 60000, shape).astype(np.uint16)
for k, (axes, shape) in enumerate((("ZYX", (4, 20, 30)), ("CYX", (3, 20, 30)), ("ZCYX", (4, 3, 20, 30)),
                                   ("TZCYX", (2, 4, 3, 20, 30)), ("TYX", (5, 20, 30)))):
    a = data(*shape)
    tifffile.imwrite(f"imagej{k}.tif", a, imagej=True, metadata={"axes": axes})
    keep(f"imagej{k}.tif", a, axes.lower())
for k, (axes, shape) in enumerate((("ZYX", (4, 20, 30)), ("CYX", (3, 20, 30)), ("TZCYX", (2, 4, 3, 20, 30)),
                                   ("CZYX", (3, 4, 20, 30)), ("ZTYX", (4, 2, 20, 30)))):
    a = data(*shape)
    tifffile.imwrite(f"ome{k}.ome.tif", a, ome=True, photometric="minisblack", metadata={"axes": axes})
    keep(f"ome{k}.ome.tif", a, axes.lower())
rgb = rng.integers(0, 255, (4, 20, 30, 3)).astype(np.uint8)
tifffile.imwrite("rgb.ome.tif", rgb, ome=True, photometric="rgb", metadata={"axes": "ZYXS"})
keep("rgb.ome.tif", rgb, "zyxc")
# What ImageJ does above 4 GiB: one directory, all images behind it.
a = data(6, 20, 30).astype(">u2")
tifffile.imwrite("one.tif", a[0], imagej=True, byteorder=">", metadata={"axes": "YX"})
with tifffile.TiffFile("one.tif") as f: page = f.pages[0]; offset = page.dataoffsets[0]; text = page.tags["ImageDescription"]
raw = bytearray(open("one.tif", "rb").read())
said = b"ImageJ=1.11a\nimages=6\nslices=6\n"
at = len(raw) ; raw += said + b"\0"
import struct
entry = raw.find(struct.pack(">HH", 270, 2), struct.unpack(">I", raw[4:8])[0])
raw[entry + 4:entry + 12] = struct.pack(">II", len(said) + 1, at)
strip = raw.find(struct.pack(">H", 273), struct.unpack(">I", raw[4:8])[0])
raw[strip + 8:strip + 12] = struct.pack(">I", len(raw))
open("huge.tif", "wb").write(raw + a.tobytes())
keep("huge.tif", a, "zyx")
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 12u) << said;
  for (const testing::ExpectedArray& e : all)
    expect_array(*open_tiff(folder.file(e.name)), e, folder);
}

TEST(Tiff, RefusesWhatItCannotReadAndSaysWhy) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, tifffile
from PIL import Image
a = np.arange(600, dtype=np.uint8).reshape(20, 30)
with tifffile.TiffWriter("mixed.tif") as w: w.write(a, metadata=None); w.write(a[:10], metadata=None)
with tifffile.TiffWriter("pyramid.tif") as w: w.write(a, metadata=None); w.write(a[::2, ::2], subfiletype=1, metadata=None)
tifffile.imwrite("complex.tif", a.astype(np.complex64), metadata=None)
Image.fromarray(a).convert("1").save("bit.tif")
tifffile.imwrite("fine.tif", np.stack([a] * 4), metadata=None, photometric="minisblack")
data = open("fine.tif", "rb").read(); open("short.tif", "wb").write(data[:1500])
)"),
            "");
  const auto refusal = [&](const char* name) {
    return message_of<DataError>([&] {
      const auto file = open_tiff(folder.file(name));
      testing::read_box(*file, std::vector<int64_t>(file->shape().size(), 0), file->shape());
    });
  };
  EXPECT_THAT(refusal("mixed.tif"), HasSubstr("must be alike"));
  EXPECT_EQ(refusal("pyramid.tif"), "");
  EXPECT_EQ(open_tiff(folder.file("pyramid.tif"))->shape(), (std::vector<int64_t>{20, 30}));
  EXPECT_THAT(refusal("complex.tif"), HasSubstr("sample format"));
  EXPECT_THAT(refusal("bit.tif"), HasSubstr("1 bits"));
  EXPECT_THAT(refusal("short.tif"), HasSubstr("short.tif"));
  core::write_file_atomic(folder.file("none.tif"), "no such thing");
  EXPECT_THAT(refusal("none.tif"), HasSubstr("must be a TIFF file"));
}

TEST(Tiff, ThreadsReadOneFileAtOnce) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
import tifffile
a = np.random.default_rng(3).integers(0, 60000, (40, 64, 64)).astype(np.uint16)
tifffile.imwrite("a.tif", a, metadata=None, compression="zlib", photometric="minisblack"); keep("a.tif", a, "zyx")
)");
  const testing::ExpectedArray e = testing::parse_arrays(said).at(0);
  const auto file = open_tiff(folder.file("a.tif"));
  const std::string whole = core::read_file(folder.file("a.tif.expected"), 1 << 24);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int64_t z = t; z < 40; z += 2)
        wrong += testing::read_box(*file, {z, 0, 0}, {1, 64, 64}) !=
                 whole.substr(static_cast<size_t>(z * 64 * 64 * 2), 64 * 64 * 2);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tiff, SurvivesThousandsOfDamagedFiles) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, tifffile
from PIL import Image
a = np.random.default_rng(3).integers(0, 255, (3, 20, 30)).astype(np.uint8)
tifffile.imwrite("plain.tif", a, metadata=None, photometric="minisblack")
tifffile.imwrite("packed.tif", a, metadata=None, photometric="minisblack", compression="zlib", tile=(16, 16), bigtiff=True)
Image.fromarray(a.transpose(1, 2, 0)).save("jpeg.tif", compression="jpeg")
Image.fromarray(a[0]).save("lzw.tif", compression="tiff_lzw")
)"),
            "");
  for (const char* name : {"plain.tif", "packed.tif", "jpeg.tif", "lzw.tif"}) {
    const auto counts = testing::fuzz<DataError>(
        core::read_file(folder.file(name), 1 << 20), 3'000, [](std::span<const std::byte> bytes) {
          const auto file = parse_tiff(bytes, nullptr, "fuzzed");
          if (testing::product(file->shape()) < 100'000)
            testing::read_box(*file, std::vector<int64_t>(file->shape().size(), 0), file->shape());
        });
    EXPECT_GT(counts.refused, 300);
  }
}

}  // namespace
}  // namespace vitrail::io
