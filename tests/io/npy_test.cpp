#include "vitrail/io/npy.h"

#include <cstring>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/arrays.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using testing::as_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string file = std::string("\x93NUMPY") + version + '\0' + static_cast<char>(header.size());
  file += version == 1 ? std::string(1, '\0') : std::string(3, '\0');
  return file + header + data;
}

NpyFile parse(const std::string& file) { return NpyFile::parse(as_bytes(file), "fuzzed"); }

TEST(Npy, ReadsWhatItWroteInEveryRank) {
  const TempFolder folder;
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.0f);
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{}, {24}, {4, 6}, {2, 3, 4}, {0, 3}}) {
    write_npy(folder.file("a.npy"), DType::f32, shape, data.data());
    const auto file = NpyFile::open(folder.file("a.npy"));
    EXPECT_EQ(file.shape(), shape);
    EXPECT_EQ(file.dtype(), DType::f32);
    EXPECT_FALSE(file.fortran_order());
    EXPECT_EQ(file.count(),
              std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
    EXPECT_EQ(std::memcmp(file.bytes().data(), data.data(), file.bytes().size()), 0);
  }
}

TEST(Npy, NumpyReadsWhatWeWrote) {
  const TempFolder folder;
  const float ramp[] = {0, 1, 2, 3, 4, 5};
  const int64_t one = -9;
  const uint8_t flags[] = {1, 0};
  write_npy(folder.file("ramp.npy"), DType::f32, std::vector<int64_t>{2, 3}, ramp);
  write_npy(folder.file("one.npy"), DType::i64, {}, &one);
  write_npy(folder.file("flags.npy"), DType::boolean, std::vector<int64_t>{2}, flags);
  write_npy(folder.file("none.npy"), DType::f16, std::vector<int64_t>{0, 5}, nullptr);
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
ramp, one, flags, none = (np.load(n + ".npy") for n in ("ramp", "one", "flags", "none"))
assert ramp.dtype == np.float32 and ramp.tolist() == [[0, 1, 2], [3, 4, 5]]
assert one.dtype == np.int64 and one.shape == () and one == -9
assert flags.dtype == bool and flags.tolist() == [True, False]
assert none.dtype == np.float16 and none.shape == (0, 5)
print("fine")
)");
  EXPECT_EQ(said, "fine\n");
}

TEST(Npy, WeReadWhatNumpyWrote) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
for t in "f8 f4 f2 i8 i4 i2 i1 u8 u4 u2 u1 ?".split():
    np.save(t.replace("?", "b1") + ".npy", np.array([[1, 0, 1], [0, 1, 1]]).astype(t))
np.save("fortran.npy", np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)))
for v in (1, 2, 3):
    with open(f"v{v}.npy", "wb") as f:
        np.lib.format.write_array(f, np.arange(3, dtype="<u4"), version=(v, 0))
np.save("big.npy", np.arange(3, dtype=">f4"))
np.save("complex.npy", np.arange(3, dtype="<c8"))
np.save("object.npy", np.array([{}], dtype=object))
np.save("struct.npy", np.zeros(2, dtype=[("a", "<f4")]))
print("fine")
)");
  ASSERT_EQ(said, "fine\n");
  const std::pair<const char*, DType> types[] = {
      {"f8", DType::f64}, {"f4", DType::f32}, {"f2", DType::f16}, {"i8", DType::i64},
      {"i4", DType::i32}, {"i2", DType::i16}, {"i1", DType::i8},  {"u8", DType::u64},
      {"u4", DType::u32}, {"u2", DType::u16}, {"u1", DType::u8},  {"b1", DType::boolean}};
  for (const auto& [name, dtype] : types) {
    const auto file = NpyFile::open(folder.file(std::string(name) + ".npy"));
    EXPECT_EQ(file.dtype(), dtype);
    EXPECT_THAT(file.shape(), ElementsAre(2, 3));
  }
  const auto fortran = NpyFile::open(folder.file("fortran.npy"));
  EXPECT_TRUE(fortran.fortran_order());
  int16_t second = 0;
  std::memcpy(&second, fortran.bytes().data() + 2, 2);
  EXPECT_EQ(second, 3);  // first axis fastest
  for (const char* version : {"v1.npy", "v2.npy", "v3.npy"})
    EXPECT_EQ(NpyFile::open(folder.file(version)).count(), 3);
  EXPECT_TRUE(NpyFile::open(folder.file("big.npy")).is_big_endian());
  for (const char* refused : {"complex.npy", "object.npy", "struct.npy"})
    EXPECT_THAT(message_of<DataError>([&] { NpyFile::open(folder.file(refused)); }),
                HasSubstr(refused));
}

TEST(Npy, BoxesEqualNumPyOverTypesByteOrdersAxisOrdersAndShapes) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
rng = np.random.default_rng(3)
n = 0
for t in "f8 f4 f2 i8 i4 i2 i1 u8 u4 u2 u1 b1".split():
    for order in "<>":
        for fortran in (False, True):
            for shape in ((), (7,), (5, 6), (3, 4, 5), (2, 3, 4, 5), (2, 1, 3, 2, 4), (0, 3)):
                a = (rng.standard_normal(shape) * 100).astype(order + t)
                a = np.array(np.asfortranarray(a) if fortran else a, dtype=order + t)
                name = f"{n}.npy"; n += 1
                np.save(name, a); keep(name, a)
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 12u * 2 * 2 * 7) << said;
  int boxes = 0;
  for (const testing::ExpectedArray& e : all)
    boxes += expect_array(*open_npy(folder.file(e.name)), e, folder);
  std::printf("%zu files and %d boxes equal NumPy's bit for bit\n", all.size(), boxes);
}

TEST(Npy, RefusesBadHeadersAndSaysWhy) {
  const std::pair<const char*, const char*> bad[] = {
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "must hold 8 bytes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", "expected ','"},
      {"{'descr': '<f4', 'fortran_order': False}", "expected the keys"},
      {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", "True or False"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "whole number"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
       "whole number"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296,)}",
       "must fit in 64 bits"},
      {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "every key once"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "nothing behind"},
      {"{'descr': '<f4', 'other': False, 'shape': (1,)}", "before 'other'"},
      {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", "'<c8'"},
      {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "expected"},
      {"", "expected '{'"},
  };
  for (const auto& [header, message] : bad)
    EXPECT_THAT(message_of<DataError>([&] { parse(npy(header, "1234")); }), HasSubstr(message))
        << header;
  const char* good = "{'shape': (1,), 'fortran_order': False, \"descr\": '<f4'}\n";
  EXPECT_EQ(parse(npy(good, "1234")).count(), 1);
  EXPECT_THROW(parse(npy(good, "1234", 4)), DataError);
  EXPECT_THROW(parse(npy(good, "12345")), DataError);
}

TEST(Npy, RefusesToWriteWhatNumpyDoesNotKnow) {
  EXPECT_THROW(write_npy("/tmp/never.npy", DType::bf16, std::vector<int64_t>{1}, "xx"),
               core::Error);
  EXPECT_THROW(write_npy("/tmp/never.npy", DType::f32, std::vector<int64_t>{-1}, "xx"),
               core::Error);
}

TEST(Npy, SurvivesTwentyThousandDamagedFiles) {
  const TempFolder folder;
  write_npy(folder.file("a.npy"), DType::f32, std::vector<int64_t>{3, 4},
            std::string(48, 'x').data());
  const auto counts = testing::fuzz<DataError>(
      core::read_file(folder.file("a.npy"), 1000), 20'000, [](std::span<const std::byte> bytes) {
        const auto file = NpyFile::parse(bytes, "fuzzed");
        ASSERT_EQ(file.count() * core::size_bytes(file.dtype()),
                  static_cast<int64_t>(file.bytes().size()));
      });
  EXPECT_GT(counts.refused, 10'000);
}

}  // namespace
}  // namespace vitrail::io
