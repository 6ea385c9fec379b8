#include "vitrail/io/raw.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/io/arrays.h"
#include "tests/io/python.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::ConfigError;
using core::DataError;
using core::DType;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

TEST(Raw, TypesHaveNumPysNamesAndCodesInBothByteOrders) {
  const std::tuple<const char*, DType, bool> known[] = {
      {"uint8", DType::u8, false},     {"u1", DType::u8, false},
      {"|u1", DType::u8, false},       {"<i2", DType::i16, false},
      {">i2", DType::i16, true},       {"uint16be", DType::u16, true},
      {"uint16le", DType::u16, false}, {">f4", DType::f32, true},
      {"float64", DType::f64, false},  {">float64", DType::f64, true},
      {"bool", DType::boolean, false}, {"bfloat16", DType::bf16, false},
      {"f2", DType::f16, false},       {"int64be", DType::i64, true},
  };
  for (const auto& [text, dtype, is_big] : known) {
    EXPECT_EQ(parse_raw_type(text).dtype, dtype) << text;
    EXPECT_EQ(parse_raw_type(text).is_big_endian, is_big) << text;
  }
  for (const char* text : {"", "float", "c8", "<", "uint8x", "int12", "be"})
    EXPECT_THAT(message_of<ConfigError>([&] { parse_raw_type(text); }), HasSubstr("dtype must be"))
        << text;
}

TEST(Raw, BoxesEqualNumPysMemoryMap) {
  const TempFolder folder;
  const std::string said =
      testing::run_python(folder.path(), std::string(testing::kKeepArrays) + R"(
rng = np.random.default_rng(3)
n = 0
for t in "f8 f4 f2 i8 i4 i2 i1 u8 u4 u2 u1 b1".split():
    for order in "<>":
        for shape in ((9,), (5, 6), (3, 4, 5), (2, 3, 4, 5)):
            offset = (0, 1, 64)[n % 3]
            name = f"{order}{t}-{offset}-{n}"; n += 1
            a = (rng.standard_normal(shape) * 100).astype(order + t)
            open(name, "wb").write(b"x" * offset + a.tobytes())
            keep(name, np.memmap(name, dtype=order + t, mode="r", offset=offset, shape=shape))
)");
  const std::vector<testing::ExpectedArray> all = testing::parse_arrays(said);
  ASSERT_EQ(all.size(), 12u * 2 * 4) << said;
  int boxes = 0;
  for (const testing::ExpectedArray& e : all) {
    const size_t dash = e.name.find('-');
    const RawLayout layout{parse_raw_type(e.name.substr(0, dash)), e.shape,
                           std::stoll(e.name.substr(dash + 1)), false};
    boxes += expect_array(*open_raw(folder.file(e.name), layout), e, folder);
  }
  std::printf("%zu files and %d boxes equal numpy.memmap bit for bit\n", all.size(), boxes);
}

TEST(Raw, AFarBoxOfAFileOfTerabytesTouchesOnlyItsPages) {
  const TempFolder folder;
  const std::string path = folder.file("huge.raw");
  const std::vector<int64_t> shape{1200, 32768, 32768};  // uint16: 2.4 TiB, nearly all of it a hole
  const int64_t bytes = testing::product(shape) * 2, far = bytes - 2 * (32768 * 5 + 9);
  const int descriptor = ::open(path.c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_GE(descriptor, 0);
  if (::ftruncate(descriptor, bytes) != 0) {
    ::close(descriptor);
    GTEST_SKIP() << "the file system has no sparse files of " << bytes << " bytes";
  }
  const uint16_t value = 4711;
  ASSERT_EQ(::pwrite(descriptor, &value, 2, far), 2);
  ::close(descriptor);
  const core::Stopwatch watch;
  const auto file = open_raw(path, {{DType::u16, false}, shape, 0, false});
  std::string box = testing::read_box(*file, {1199, 32768 - 64, 32768 - 64}, {1, 64, 64});
  const double ms = watch.ms();
  uint16_t read = 0;
  std::memcpy(&read, box.data() + 2 * ((64 - 6) * 64 + 64 - 9), 2);
  EXPECT_EQ(read, 4711);
  std::printf("a box of a file of %.2f TB in %.2f ms\n", static_cast<double>(bytes) * 1e-12, ms);
  // Measured 0.1 to 3 ms; reading even 1 % of the file would take minutes.
  EXPECT_LT(ms, 1000);
}

TEST(Raw, AFileOfAnotherLengthIsRefused) {
  const TempFolder folder;
  core::write_file_atomic(folder.file("a.raw"), std::string(24, 'x'));
  const auto refusal = [&](std::vector<int64_t> shape, int64_t offset) {
    return message_of<DataError>([&] {
      open_raw(folder.file("a.raw"), {{DType::u16, false}, std::move(shape), offset, false});
    });
  };
  EXPECT_EQ(refusal({3, 4}, 0), "");
  EXPECT_EQ(refusal({3, 3}, 6), "");
  EXPECT_THAT(refusal({3, 5}, 0), HasSubstr("must hold 30 bytes"));
  EXPECT_THAT(refusal({3, 3}, 0), HasSubstr("must hold 18 bytes"));
  EXPECT_THAT(refusal({3, 4}, 25), HasSubstr("a.raw"));
  EXPECT_THAT(refusal({3, 4}, -1), HasSubstr("a.raw"));
  EXPECT_THAT(refusal({-3, -4}, 0), HasSubstr("zero or more"));
  EXPECT_THAT(refusal({int64_t{1} << 40, int64_t{1} << 40}, 0), HasSubstr("must fit in 64 bits"));
  EXPECT_THAT(message_of<DataError>([&] { open_raw(folder.file("none"), {}); }), HasSubstr("none"));
}

}  // namespace
}  // namespace vitrail::io
