#include "vitrail/io/npz.h"

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

TEST(Npz, MembersStoredAndDeflatedEqualNumPys) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
import zipfile
rng = np.random.default_rng(3)
arrays = {t + o: np.array((rng.standard_normal(s) * 100), dtype=o + t, order=f)
          for t, s in (("f4", (3, 4, 5)), ("i2", (40, 50)), ("u1", (7,)), ("f8", (0, 3)), ("b1", ()))
          for o, f in (("<", "C"), (">", "F"))}
np.savez("stored.npz", **{k.replace("<", "l").replace(">", "b"): v for k, v in arrays.items()})
np.savez_compressed("packed.npz", **{k.replace("<", "l").replace(">", "b"): v for k, v in arrays.items()})
with zipfile.ZipFile("wide.npz", "w", allowZip64=True) as z:  # sizes in the 64-bit extension
    for k, v in arrays.items():
        with z.open(k.replace("<", "l").replace(">", "b") + ".npy", "w", force_zip64=True) as f: np.save(f, v)
    z.comment = b"PK\x05\x06 a comment that looks like an end record, and is none"
    z.writestr("notes.txt", "no array")
for file in ("stored", "packed", "wide"):
    for k, v in arrays.items():
        keep(f"{file}.npz#" + k.replace("<", "l").replace(">", "b"), v)
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 30u) << said;
  int boxes = 0;
  for (const testing::ExpectedArray& e : all) {
    const size_t hash = e.name.find('#');
    const std::string path = folder.file(e.name.substr(0, hash)), member = e.name.substr(hash + 1);
    boxes += expect_array(*open_npz(path, member), e, folder);
    boxes += expect_array(*open_npz(path, member + ".npy"), e, folder, 1);
  }
  std::printf("%zu members and %d boxes equal NumPy's bit for bit\n", all.size(), boxes);
}

TEST(Npz, TheOnlyArrayNeedsNoNameAndOthersAreListed) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np
np.savez("one.npz", x=np.arange(6)); np.savez("two.npz", x=np.arange(6), y=np.arange(3)); np.savez("none.npz")
)"),
            "");
  EXPECT_EQ(open_npz(folder.file("one.npz"), "")->shape(), std::vector<int64_t>{6});
  EXPECT_EQ(open_npz(folder.file("two.npz"), "y")->shape(), std::vector<int64_t>{3});
  const auto refusal = [&](const char* file, const char* array) {
    return message_of<DataError>([&] { open_npz(folder.file(file), array); });
  };
  EXPECT_THAT(refusal("two.npz", ""), HasSubstr("holds the arrays [x, y]; set array"));
  EXPECT_THAT(refusal("two.npz", "z"), HasSubstr("instead of 'z'"));
  EXPECT_THAT(refusal("none.npz", ""), HasSubstr("none.npz"));
}

TEST(Npz, AMemberThatPromisesGigabytesAllocatesNothing) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np, struct
np.savez_compressed("a.npz", x=np.zeros(100000))
data = bytearray(open("a.npz", "rb").read())
at = data.rfind(b"PK\x01\x02")
data[at + 24:at + 28] = struct.pack("<I", 0xFFFFFF00)
open("bomb.npz", "wb").write(data)
)"),
            "");
  EXPECT_THAT(message_of<DataError>([&] { open_npz(folder.file("bomb.npz"), ""); }),
              HasSubstr("times its"));
  EXPECT_THAT(message_of<DataError>([&] { open_npz(folder.file("a.npz"), "", {1000}); }),
              HasSubstr("at most 1000 bytes"));
}

TEST(Npz, AMemberWithAnotherSumIsRefused) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np
np.savez_compressed("a.npz", x=np.arange(1000))
data = bytearray(open("a.npz", "rb").read())
data[data.rfind(b"PK\x01\x02") + 16] ^= 1
open("sum.npz", "wb").write(data)
)"),
            "");
  EXPECT_EQ(open_npz(folder.file("a.npz"), "x")->shape(), std::vector<int64_t>{1000});
  EXPECT_THAT(message_of<DataError>([&] { open_npz(folder.file("sum.npz"), "x"); }),
              HasSubstr("has another sum"));
}

TEST(Npz, SurvivesThousandsOfDamagedFiles) {
  const TempFolder folder;
  ASSERT_EQ(testing::run_python(folder.path(), R"(
import numpy as np
x = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
np.savez("stored.npz", x=x); np.savez_compressed("packed.npz", x=x)
)"),
            "");
  for (const char* name : {"stored.npz", "packed.npz"}) {
    const auto counts = testing::fuzz<DataError>(
        core::read_file(folder.file(name), 1 << 20), 5'000, [](std::span<const std::byte> bytes) {
          const auto file = parse_npz(bytes, nullptr, "fuzzed", "");
          if (testing::product(file->shape()) < 1000)
            testing::read_box(*file, std::vector<int64_t>(file->shape().size(), 0), file->shape());
        });
    EXPECT_GT(counts.refused, 1000);
  }
}

}  // namespace
}  // namespace vitrail::io
