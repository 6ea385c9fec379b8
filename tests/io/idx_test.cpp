#include "vitrail/io/idx.h"

#include <fmt/ranges.h>
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
using testing::as_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

std::string bytes_of(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text += static_cast<char>(value);
  return text;
}

std::string refusal(const std::string& file) {
  return message_of<DataError>([&] { parse_idx(as_bytes(file), "fuzzed"); });
}

TEST(Idx, EveryTypeReadsAsNumpyWroteIt) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
codes = {8: 'u1', 9: 'i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}
rng = np.random.default_rng(0)
for code, dtype in codes.items():
    kind = np.dtype(dtype)
    raw = rng.standard_normal((3, 4, 5)) * 1e3 if kind.kind == 'f' else rng.integers(
        np.iinfo(kind).min, np.iinfo(kind).max, (3, 4, 5), endpoint=True)
    values = raw.astype(kind)
    with open(f'{code}.idx', 'wb') as file:
        file.write(bytes([0, 0, code, 3]) + np.array([3, 4, 5], '>u4').tobytes() + values.tobytes())
    np.savetxt(f'{code}.txt', values.reshape(-1).astype('f8'), '%.17g')
)");
  ASSERT_EQ(said, "");
  for (const int code : {8, 9, 11, 12, 13, 14}) {
    const std::string file = core::read_file(folder.file(std::to_string(code) + ".idx"), 1 << 20);
    const IdxArray array = parse_idx(as_bytes(file), "x");
    EXPECT_THAT(array.shape, ElementsAre(3, 4, 5));
    std::string text;
    for (int64_t i = 0; i < 60; ++i) text += fmt::format("{:.17g}\n", array.at(i));
    EXPECT_EQ(text, core::read_file(folder.file(std::to_string(code) + ".txt"), 1 << 20)) << code;
  }
}

TEST(Idx, RefusesWrongHeadersAndLengths) {
  EXPECT_THAT(refusal(""), HasSubstr("fuzzed: an IDX file must start with"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8})), HasSubstr("ends before"));
  EXPECT_THAT(refusal(bytes_of({0, 1, 8, 1, 0, 0, 0, 0})), HasSubstr("starts with others"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 10, 1, 0, 0, 0, 0})), HasSubstr("the type of an IDX file"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8, 0})), HasSubstr("1 to 8 axes"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8, 9, 0, 0, 0, 0})), HasSubstr("1 to 8 axes"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8, 2, 0, 0, 0, 1})), HasSubstr("a length for each"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8, 1, 0, 0, 0, 2, 7})),
              HasSubstr("must hold 2 bytes of values but holds 1"));
  EXPECT_THAT(refusal(bytes_of({0, 0, 8, 1, 0, 0, 0, 1, 7, 7})), HasSubstr("holds 2"));
  EXPECT_EQ(refusal(bytes_of({0, 0, 8, 1, 0, 0, 0, 0})), "");
}

TEST(Idx, RefusesAxesWhoseProductWrapsRound) {
  std::string file = bytes_of({0, 0, 14, 4});
  for (int axis = 0; axis < 4; ++axis) file += bytes_of({0, 1, 0, 0});  // (2^16)^4 * 8 = 2^67
  EXPECT_THAT(refusal(file), HasSubstr("beyond 64 bits"));
  file = bytes_of({0, 0, 8, 3});
  for (int axis = 0; axis < 3; ++axis) file += bytes_of({255, 255, 255, 255});
  EXPECT_THAT(refusal(file), HasSubstr("beyond 64 bits"));
}

TEST(Idx, DamagedFilesAreReadOrRefused) {
  std::string file =
      bytes_of({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}) + std::string(24, 'x');
  const auto counts = testing::fuzz<DataError>(file, 3000, [](std::span<const std::byte> bytes) {
    const IdxArray array = parse_idx(bytes, "fuzzed");
    int64_t n = 1;
    for (const int64_t side : array.shape) n *= side;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += array.at(i);  // AddressSanitizer looks on
    ASSERT_TRUE(sum == sum || array.dtype != core::DType::u8);
  });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 100);
}

}  // namespace
}  // namespace vitrail::io
