#include "vitrail/io/csv_gz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

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

std::string gzip(const std::string& text) {
  z_stream stream{};
  ::deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(::deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

std::string inflate(const std::string& file, int64_t max_bytes = 1 << 20) {
  return inflate_gzip(as_bytes(file), "fuzzed", max_bytes);
}

TEST(Gzip, UnpacksEveryLength) {
  for (const size_t length : {0, 1, 65'535, 65'536, 65'537, 200'000, 262'144}) {
    std::string text(length, '\0');
    for (size_t i = 0; i < length; ++i) text[i] = static_cast<char>(core::mix64(i));
    EXPECT_EQ(inflate(gzip(text)), text) << length;
  }
}

TEST(Gzip, UnpacksSeveralPartsBehindEachOther) {
  EXPECT_EQ(inflate(gzip("first ") + gzip("") + gzip("second")), "first second");
}

TEST(Gzip, RefusesTruncationAtEveryByte) {
  const std::string file = gzip("some text that is packed, some text that is packed");
  for (size_t length = 0; length < file.size(); ++length)
    EXPECT_THROW(inflate(file.substr(0, length)), DataError) << length;
}

TEST(Gzip, RefusesABombAndNamesTheLimit) {
  const std::string bomb = gzip(std::string(50'000'000, 'x'));
  EXPECT_LT(bomb.size(), 100'000u);
  EXPECT_THAT(message_of<DataError>([&] { inflate(bomb, 1'000'000); }),
              HasSubstr("at most 1000000 bytes"));
}

TEST(Gzip, LimitIsExact) {
  EXPECT_EQ(inflate(gzip("12345"), 5), "12345");
  EXPECT_THROW(inflate(gzip("12345"), 4), DataError);
}

TEST(Gzip, RefusesWhatIsBehindTheEnd) { EXPECT_THROW(inflate(gzip("text") + "more"), DataError); }

TEST(Gzip, SurvivesTenThousandDamagedFiles) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += std::to_string(i * i) + ",";
  const auto counts = testing::fuzz<DataError>(
      gzip(text), 10'000,
      [](std::span<const std::byte> bytes) { inflate_gzip(bytes, "fuzzed", 100'000); });
  EXPECT_GT(counts.refused, 8'000);
}

TEST(Csv, ReadsNumbers) {
  const NumericTable table = parse_csv("1,2.5,-3e2\r\n 4 ,\t5,6\n\n7,8,9", "a.csv");
  EXPECT_EQ(table.rows, 3);
  EXPECT_EQ(table.columns, 3);
  EXPECT_THAT(table.values, ElementsAre(1, 2.5, -300, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(table.at(1, 2), 6.0);
  EXPECT_EQ(parse_csv("a,b\n1,2\n", "a.csv", 1).rows, 1);
  EXPECT_EQ(parse_csv("", "a.csv").rows, 0);
}

TEST(Csv, NamesLineAndColumnOfWhatIsNoNumber) {
  const std::pair<const char*, const char*> bad[] = {
      {"1,2\n3,x\n", "a.csv:2: column 2 must be a finite number but got 'x'"},
      {"1,2\n3,4 5\n", "a.csv:2: column 2"},
      {"1,\n", "a.csv:1: column 2"},
      {"1,,2\n", "a.csv:1: column 2"},
      {"nan,1\n", "a.csv:1: column 1"},
      {"1,inf\n", "a.csv:1: column 2"},
      {"1e999\n", "a.csv:1: column 1"},
      {"1,2\n3\n", "a.csv:2: must have 2 columns as the lines before but has 1"},
      {"1,2\n3,4,5\n", "a.csv:2: must have 2 columns as the lines before but has 3"},
  };
  for (const auto& [text, message] : bad)
    EXPECT_THAT(message_of<DataError>([&] { parse_csv(text, "a.csv"); }), HasSubstr(message))
        << text;
}

TEST(Csv, ReadsATableLikeTheDigitsAsPythonDoes) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import gzip, numpy as np
table = np.random.default_rng(1).integers(0, 17, (1797, 65))
with gzip.open("digits.csv.gz", "wt") as f:
    np.savetxt(f, table, delimiter=",", fmt="%d")
print(int((table * np.arange(65)).sum()))
)");
  const std::string text = read_gzip(folder.file("digits.csv.gz"), 1 << 20);
  const NumericTable table = parse_csv(text, "digits.csv.gz");
  ASSERT_EQ(table.rows, 1797);
  ASSERT_EQ(table.columns, 65);
  double sum = 0.0;
  for (int64_t i = 0; i < table.rows; ++i)
    for (int64_t j = 0; j < table.columns; ++j) sum += table.at(i, j) * static_cast<double>(j);
  EXPECT_EQ(std::to_string(static_cast<int64_t>(sum)) + "\n", said);
}

TEST(Csv, SurvivesTenThousandDamagedTables) {
  testing::fuzz<DataError>(
      "1,2,3\n4,5e1,6\n7.5,8,-9\n", 10'000, [](std::span<const std::byte> bytes) {
        const auto table =
            parse_csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzzed");
        ASSERT_EQ(static_cast<int64_t>(table.values.size()), table.rows * table.columns);
      });
}

}  // namespace
}  // namespace vitrail::io
