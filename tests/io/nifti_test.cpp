#include "vitrail/io/nifti.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::AllOf;
using testing::as_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

/// What nibabel says of a file: its array as float32 beside it, and a line of text.
constexpr const char* kDescribe = R"(
import os, sys
import numpy as np, nibabel as nib
def describe(path, out):
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float64)
    shape = list(data.shape) + [1] * max(0, 3 - data.ndim)
    data = data.reshape(shape[:3] + [-1], order="F")
    data.transpose(3, 2, 1, 0).astype("<f4").tofile(out)
    zooms = [float(z) for z in image.header["pixdim"][1:4]]
    affine = " ".join(repr(float(v)) for v in image.affine[:3].ravel())
    print(path, out, *shape[2::-1], data.shape[3], *map(repr, zooms),
          "".join(nib.aff2axcodes(image.affine)), affine)
)";

struct Expected {
  std::string path, values, orientation;
  std::vector<int64_t> sides{0, 0, 0};
  int64_t channels = 0;
  double zooms[3] = {}, affine[12] = {};
};

std::vector<Expected> parse_expected(const std::string& said) {
  std::vector<Expected> all;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Expected e;
    words >> e.path >> e.values >> e.sides[0] >> e.sides[1] >> e.sides[2] >> e.channels;
    for (double& zoom : e.zooms) words >> zoom;
    words >> e.orientation;
    for (double& value : e.affine) words >> value;
    EXPECT_FALSE(words.fail()) << line;
    all.push_back(e);
  }
  return all;
}

/// Values are equal: both scale in double and round once to float. (Not bit for bit: nibabel leaves
/// out the addition of 0 that makes 0 of -0.)
void expect_equal(const Expected& e, const TempFolder& folder, double& worst_affine) {
  SCOPED_TRACE(e.path);
  const std::string path = e.path[0] == '/' ? e.path : folder.file(e.path);
  const NiftiVolume volume = read_nifti(path);
  const NiftiHeader& header = volume.header;
  ASSERT_EQ(header.sides, e.sides);
  ASSERT_EQ(header.channels, e.channels);
  const std::string values = core::read_file(folder.file(e.values), 1 << 28);
  ASSERT_EQ(values.size(), 4 * volume.values.size());
  std::vector<float> expected(volume.values.size());
  std::memcpy(expected.data(), values.data(), values.size());
  int64_t differing = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    differing += expected[i] != volume.values[i] &&
                 !(std::isnan(expected[i]) && std::isnan(volume.values[i]));
  EXPECT_EQ(differing, 0);
  for (size_t axis = 0; axis < 3; ++axis)
    EXPECT_EQ(header.geometry.voxel_size[axis], e.zooms[axis]);
  EXPECT_EQ(header.geometry.orientation(header.sides), e.orientation);
  const NiftiGeometry::Matrix affine = header.geometry.affine(header.sides);
  for (size_t i = 0; i < 12; ++i) {
    const double scale = std::max(1.0, std::abs(e.affine[i]));
    worst_affine = std::max(worst_affine, std::abs(affine[i / 4][i % 4] - e.affine[i]) / scale);
  }
  EXPECT_EQ(read_nifti_header(path).sides, e.sides);
}

TEST(Nifti, EqualsNibabelOverTypesByteOrdersVersionsAndScales) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), std::string(kDescribe) + R"(
rng = np.random.default_rng(3)
n = 0
def put(cls, data, order, slope, inter, affine, suffix, form):
    global n
    n += 1
    header = cls.header_class(endianness=order)
    header.set_data_dtype(data.dtype.newbyteorder(order))
    header.set_data_shape(data.shape)
    image = cls(data, affine if form else None, header)
    if form == 1: image.set_sform(affine, 1); image.set_qform(None, 0)
    if form == 2: image.set_sform(None, 0); image.set_qform(affine, 1)
    path = f"v{n}{suffix}"
    if slope is None:
        image.to_filename(path)
    else:  # the stored integers are kept as they are
        proxy = image.header.copy()
        proxy.set_slope_inter(slope, inter)
        with (__import__("gzip").open if suffix.endswith("gz") else open)(path, "wb") as f:
            proxy["vox_offset"] = proxy.single_vox_offset
            proxy["magic"] = proxy.single_magic
            f.write(proxy.binaryblock.ljust(proxy.single_vox_offset, b"\0"))
            f.write(data.astype(data.dtype.newbyteorder(order)).tobytes(order="F"))
    describe(path, f"v{n}.bin")
turn = np.array([[0, -2.0, 0.1, 5], [1.5, 0.2, 0, -7], [0, 0.1, -3, 11], [0, 0, 0, 1]])
from scipy.spatial.transform import Rotation
oblique = np.eye(4)
oblique[:3, :3] = Rotation.from_euler("xyz", [20, -130, 65], degrees=True).as_matrix() @ np.diag([0.7, 1.3, 2.9])
oblique[:3, 3] = [3, -40, 12.5]
mirrored = oblique @ np.diag([1, 1, -1, 1])
affines = [turn, oblique, mirrored, np.eye(4)]
for cls in (nib.Nifti1Image, nib.Nifti2Image):
    for t in "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8".split():
        for order in "<>":
            for slope, inter in ((None, None), (0.37, -12.25), (-2.0, 0.0)):
                shape = [(5, 4, 3), (4, 3, 2, 3), (6, 5), (3, 2, 2, 1, 2)][n % 4]
                if t[0] == "f":
                    data = (rng.standard_normal(shape) * 100).astype(t)
                else:
                    info = np.iinfo(t)
                    data = rng.integers(info.min, info.max, size=shape, dtype=t, endpoint=True)
                form = (n // 2) % 3
                affine = affines[n % 4] if form != 2 else [oblique, mirrored][n % 2]
                put(cls, data, order, slope, inter, affine, [".nii", ".nii.gz"][n % 2], form)
)");
  const std::vector<Expected> all = parse_expected(said);
  ASSERT_EQ(all.size(), 120u) << said;
  double worst = 0;
  for (const Expected& e : all) expect_equal(e, folder, worst);
  // Both compute in double from the header's numbers: a few roundings of 1e-16.
  std::printf("worst relative difference of an affine: %g (allowed 1e-12)\n", worst);
  EXPECT_LE(worst, 1e-12);
}

/// Every NIfTI or ANALYZE file that nibabel brings along for its own tests is read like nibabel reads
/// it, or refused for a reason that is named here.
TEST(Nifti, EqualsNibabelOnItsOwnTestFiles) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), std::string(kDescribe) + R"(
import glob, os
root = os.path.join(os.path.dirname(nib.__file__), "tests", "data")
paths = sorted(p for e in ("nii", "nii.gz", "hdr", "hdr.gz") for p in glob.glob(root + "/*." + e))
for k, path in enumerate(paths):
    try:
        describe(path, f"{k}.bin")
    except Exception as error:
        try:  # CIFTI: the same values as a plain NIfTI-2 file
            load, nib.load = nib.load, nib.Nifti2Image.load
            describe(path, f"{k}.bin")
        except Exception:
            print("refused", path)
        finally:
            nib.load = load
)");
  std::istringstream lines(said);
  std::string read;
  std::vector<std::string> refused;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("refused "))
      refused.push_back(line.substr(8));
    else
      read += line + "\n";
  const std::vector<Expected> all = parse_expected(read);
  if (all.empty()) GTEST_SKIP() << "nibabel is installed without its test data";
  double worst = 0;
  for (const Expected& e : all) expect_equal(e, folder, worst);
  // Headers without their values, and ANALYZE.
  for (const std::string& path : refused) {
    const std::string reason = message_of<DataError>([&] { read_nifti(path); });
    EXPECT_THAT(reason, ::testing::AnyOf(HasSubstr("must lie beside it"),
                                         HasSubstr("ANALYZE files are not read")))
        << path;
    std::printf("%s\n", reason.c_str());
  }
  std::printf(
      "%zu files of nibabel equal, %zu refused as nibabel does; worst relative difference of an "
      "affine: %g (allowed 1e-12)\n",
      all.size(), refused.size(), worst);
  EXPECT_LE(worst, 1e-12);
}

TEST(Nifti, PairsOfHeaderAndValuesEqualNibabel) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), std::string(kDescribe) + R"(
rng = np.random.default_rng(5)
k = 0
for cls in (nib.Nifti1Pair, nib.Nifti2Pair):
    for t in ("u1", "<i2", ">i2", "<f4", ">f8"):
        k += 1
        image = cls((rng.standard_normal((5, 4, 3, 2)) * 50).astype(t), np.diag([2, 3, 4, 1.0]))
        image.header.set_data_dtype(t)
        image.to_filename(f"p{k}.img")
        describe(f"p{k}.hdr", f"p{k}.bin")
import gzip
open("p1.img.gz", "wb").write(gzip.compress(open("p1.img", "rb").read())); os.remove("p1.img")
)");
  const std::vector<Expected> all = parse_expected(said);
  ASSERT_EQ(all.size(), 10u) << said;
  double worst = 0;
  for (const Expected& e : all) expect_equal(e, folder, worst);
  EXPECT_LE(worst, 1e-12);
  EXPECT_THAT(message_of<DataError>([&] {
                const std::string header = core::read_file(folder.file("p2.hdr"), 1 << 20);
                decode_nifti(as_bytes(header), "alone.nii");
              }),
              HasSubstr("header of a pair"));
}

TEST(Nifti, BoxesEqualCropsOfTheWhole) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, nibabel as nib
data = np.random.default_rng(7).integers(-99, 99, (7, 6, 5, 2)).astype(np.int16)
for name in ("a.nii", "a.nii.gz", "a.img"): nib.save(nib.Nifti1Image(data, np.eye(4)) if ".nii" in name else nib.Nifti1Pair(data, np.eye(4)), name)
)"),
            "");
  for (const char* name : {"a.nii", "a.nii.gz", "a.hdr"}) {
    const NiftiVolume whole = read_nifti(folder.file(name));
    const std::vector<int64_t> sides = whole.header.sides;
    ASSERT_THAT(sides, ElementsAre(5, 6, 7));
    const std::vector<int64_t> origin{2, 1, 3}, box{3, 4, 2};
    const NiftiVolume part = read_nifti_box(folder.file(name), origin, box);
    ASSERT_EQ(part.values.size(), 2u * 3 * 4 * 2);
    size_t at = 0;
    for (int64_t c = 0; c < 2; ++c)
      for (int64_t z = 2; z < 5; ++z)
        for (int64_t y = 1; y < 5; ++y)
          for (int64_t x = 3; x < 5; ++x)
            EXPECT_EQ(part.values[at++],
                      whole.values[static_cast<size_t>(((c * 5 + z) * 6 + y) * 7 + x)]);
    EXPECT_THROW(read_nifti_box(folder.file(name), origin, std::vector<int64_t>{4, 1, 1}),
                 core::Error);
  }
}

TEST(Nifti, WhatWeWriteNibabelReadsWithTheSourcesAffine) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, nibabel as nib
affine = np.array([[0, -2.0, 0.1, 5], [1.5, 0.2, 0, -7], [0, 0.1, -3, 11], [0, 0, 0, 1]])
image = nib.Nifti1Image(np.zeros((5, 4, 3), np.uint8), affine)
image.header.set_xyzt_units("mm")
image.set_qform(np.diag([-1.5, 2, 2.5, 1]), 1)
image.to_filename("source.nii.gz")
)"),
            "");
  const NiftiHeader source = read_nifti_header(folder.file("source.nii.gz"));
  std::vector<float> floats;
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 60; ++i) {
    floats.push_back(static_cast<float>(i) / 7.0f);
    bytes.push_back(static_cast<uint8_t>(4 * i));
  }
  write_nifti(folder.file("f.nii.gz"), source.sides, floats, source.geometry);
  write_nifti(folder.file("b.nii.gz"), source.sides, bytes, source.geometry);
  EXPECT_EQ(read_nifti(folder.file("f.nii.gz")).values, floats);
  EXPECT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, nibabel as nib
source, f, b = (nib.load(n + ".nii.gz") for n in ("source", "f", "b"))
for image in (f, b):
    assert image.shape == (5, 4, 3)
    assert np.array_equal(image.affine, source.affine), (image.affine, source.affine)
    assert np.array_equal(image.get_qform(), source.get_qform())
    assert image.header.get_zooms() == source.header.get_zooms()
    assert image.header.get_xyzt_units() == source.header.get_xyzt_units()
order = np.arange(60).reshape(3, 4, 5).transpose(2, 1, 0)
assert f.get_data_dtype() == np.float32 and b.get_data_dtype() == np.uint8
assert np.array_equal(f.get_fdata(dtype=np.float32), order.astype(np.float32) / np.float32(7))
assert np.array_equal(np.asarray(b.dataobj), order * 4)
print("fine")
)"),
            "fine\n");
  EXPECT_THROW(write_nifti(folder.file("x.nii.gz"), {2, 2, 2}, floats, {}), core::Error);
  EXPECT_THROW(write_nifti(folder.file("x.nii.gz"), {60}, floats, {}), core::Error);
  EXPECT_THROW(write_nifti(folder.file("x.nii.gz"), {1, 1, 40'000}, floats, {}), core::Error);
}

/// A plain file of bytes 0, 1, 2, ... with the given sides.
std::string plain_file(const TempFolder& folder, std::vector<int64_t> sides) {
  std::vector<uint8_t> bytes(static_cast<size_t>(sides[0] * sides[1] * sides[2]));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
  write_nifti(folder.file("plain.nii.gz"), sides, bytes, {});
  EXPECT_EQ(testing::run_python(folder.path(), R"(
import gzip
open("plain.nii", "wb").write(gzip.open("plain.nii.gz").read())
)"),
            "");
  return core::read_file(folder.file("plain.nii"), 1 << 20);
}

template <class T>
std::string changed(std::string file, size_t offset, T value) {
  std::memcpy(file.data() + offset, &value, sizeof value);
  return file;
}

std::string refusal(const std::string& file, const NiftiLimits& limits = {}) {
  return message_of<DataError>([&] { decode_nifti(as_bytes(file), "fuzzed", limits); });
}

TEST(Nifti, RefusesWhatItCannotReadAndSaysWhy) {
  const TempFolder folder;
  const std::string good = plain_file(folder, {2, 3, 4});
  EXPECT_EQ(decode_nifti(as_bytes(good), "fuzzed").values.size(), 24u);
  EXPECT_THAT(refusal(""), HasSubstr("a header has 348 bytes but the file has 0"));
  EXPECT_THAT(refusal(std::string(400, 'x')), HasSubstr("starts with other bytes"));
  EXPECT_THAT(refusal(changed(good, 344, int32_t{0x0031696E})), HasSubstr("header of a pair"));
  EXPECT_THAT(refusal(changed(good, 344, int32_t{0})), HasSubstr("ANALYZE files are not read"));
  EXPECT_THAT(refusal(changed(good, 70, int16_t{32})), HasSubstr("datatype 32"));
  EXPECT_THAT(refusal(changed(good, 70, int16_t{1536})), HasSubstr("datatype 1536"));  // 128 bits
  EXPECT_THAT(refusal(changed(good, 40, int16_t{0})), HasSubstr("must be 1 to 7 but is 0"));
  EXPECT_THAT(refusal(changed(good, 40, int16_t{8})), HasSubstr("but is 8"));
  EXPECT_THAT(refusal(changed(good, 44, int16_t{-3})), HasSubstr("axis 2 is -3"));
  EXPECT_THAT(refusal(changed(good, 42, int16_t{5})), HasSubstr("end at byte"));
  EXPECT_THAT(refusal(changed(good, 108, 100.0f)), HasSubstr("vox_offset"));
  EXPECT_THAT(refusal(changed(good, 108, std::nanf(""))), HasSubstr("vox_offset"));
  EXPECT_THAT(refusal(changed(good, 116, INFINITY)), HasSubstr("scl_inter"));
  EXPECT_THAT(refusal(good.substr(0, good.size() - 1)), HasSubstr("the file ends at 375"));
  NiftiLimits limits;
  limits.max_values = 23;
  EXPECT_THAT(refusal(good, limits), HasSubstr("at most 23 values"));
  EXPECT_EQ(decode_nifti(as_bytes(changed(good, 112, 0.0f)), "fuzzed").values[5], 5.0f);
  EXPECT_EQ(decode_nifti(as_bytes(changed(good, 112, std::nanf(""))), "fuzzed").values[5], 5.0f);
  EXPECT_EQ(decode_nifti(as_bytes(changed(good, 108, 0.0f)), "fuzzed").values[5], 5.0f);
  EXPECT_THAT(message_of<DataError>([&] { read_nifti(folder.file("none.nii")); }),
              HasSubstr("none.nii"));
  core::write_file_atomic(folder.file("empty.nii.gz"), "");
  EXPECT_THAT(message_of<DataError>([&] { read_nifti(folder.file("empty.nii.gz")); }),
              HasSubstr("empty.nii.gz"));
}

TEST(Nifti, AHeaderThatPromisesGigabytesAllocatesNothing) {
  const TempFolder folder;
  std::string huge = plain_file(folder, {2, 3, 4});
  for (const size_t axis : {42, 44, 46}) huge = changed(huge, axis, int16_t{1200});
  EXPECT_THAT(refusal(huge), HasSubstr("1728000000 values of 1 bytes end at byte"));
  // Packed, the promise is bounded by what deflate can hold: a file of 100 bytes gives at most 100 kB.
  core::write_file_atomic(folder.file("huge.nii"), huge);
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import gzip
gzip.open("huge.nii.gz", "wb").write(open("huge.nii", "rb").read())
)"),
            "");
  EXPECT_THAT(refusal(core::read_file(folder.file("huge.nii.gz"), 1 << 20)),
              HasSubstr("the file ends at 376"));
}

TEST(Nifti, ADamagedPackedFileIsRefusedEvenWhenOnlyItsSumIsWrong) {
  const TempFolder folder;
  plain_file(folder, {2, 3, 4});
  std::string packed = core::read_file(folder.file("plain.nii.gz"), 1 << 20);
  packed[packed.size() - 6] ^= 1;  // of the checksum
  EXPECT_THAT(refusal(packed), AllOf(HasSubstr("broken gzip"), HasSubstr("fuzzed")));
}

TEST(Nifti, SurvivesTwentyThousandDamagedFiles) {
  const TempFolder folder;
  const std::string plain = plain_file(folder, {2, 3, 4});
  const std::string packed = core::read_file(folder.file("plain.nii.gz"), 1 << 20);
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, nibabel as nib
nib.Nifti2Image(np.arange(24, dtype=">i2").reshape(4, 3, 2), np.eye(4),
                nib.Nifti2Header(endianness=">")).to_filename("second.nii")
)"),
            "");
  const std::string second = core::read_file(folder.file("second.nii"), 1 << 20);
  NiftiLimits limits;
  limits.max_values = 1 << 20;
  for (const std::string& file : {plain, packed, second}) {
    const auto counts =
        testing::fuzz<DataError>(file, 7'000, [&](std::span<const std::byte> bytes) {
          const NiftiVolume volume = decode_nifti(bytes, "fuzzed", limits);
          const std::vector<int64_t>& sides = volume.header.sides;
          ASSERT_EQ(sides[0] * sides[1] * sides[2] * volume.header.channels,
                    static_cast<int64_t>(volume.values.size()));
          ASSERT_EQ(volume.header.geometry.orientation(sides).size(), 3u);
        });
    EXPECT_GT(counts.refused, 1'000);
  }
}

}  // namespace
}  // namespace vitrail::io
