#include "vitrail/io/csv.h"

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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

using Rows = std::vector<std::vector<std::string>>;

Rows rows_of(std::string_view text, char separator = ',') {
  Rows rows;
  parse_csv_records(text, "fuzzed", separator,
                    [&](const CsvRecord& record) { rows.push_back(record.fields); });
  return rows;
}

std::string refusal(const std::string& text) {
  return message_of<DataError>([&] { rows_of(text); });
}

TEST(Csv, QuotesHoldSeparatorsLineEndsAndDoubledQuotes) {
  EXPECT_THAT(rows_of("a,\"b,c\"\r\n\"x\"\"y\",\"1\n2\"\r\n"),
              ElementsAre(ElementsAre("a", "b,c"), ElementsAre("x\"y", "1\n2")));
}

TEST(Csv, SkipsTheByteOrderMarkAndBlankLines) {
  EXPECT_THAT(rows_of("\xEF\xBB\xBFpath,label\n\n  \r\nx,1\n\n"),
              ElementsAre(ElementsAre("path", "label"), ElementsAre("x", "1")));
}

TEST(Csv, KeepsEmptyFieldsAlsoAtTheEndOfTheText) {
  EXPECT_THAT(rows_of(",\na,,b,"), ElementsAre(ElementsAre("", ""), ElementsAre("a", "", "b", "")));
  EXPECT_THAT(rows_of("\"\""), ElementsAre(ElementsAre("")));
}

TEST(Csv, TabsMaySeparate) {
  EXPECT_THAT(rows_of("a b,c\td\r\n\t\n", '\t'),
              ElementsAre(ElementsAre("a b,c", "d"), ElementsAre("", "")));
}

TEST(Csv, CountsLinesInsideQuotes) {
  std::vector<int64_t> lines;
  parse_csv_records("a\n\n\"b\nc\"\r\n\nd\n", "x", ',',
                    [&](const CsvRecord& record) { lines.push_back(record.line); });
  EXPECT_THAT(lines, ElementsAre(1, 3, 6));
}

TEST(Csv, RefusesWhatIsNotATable) {
  EXPECT_THAT(refusal("a\nb,\"c\nd"),
              HasSubstr("fuzzed:2: the quote that opens here is never closed"));
  EXPECT_THAT(refusal("\"a\"b\n"), HasSubstr("fuzzed:1: a closing quote must be followed by ','"));
  EXPECT_THAT(refusal(std::string("a\nb\0c", 5)), HasSubstr("fuzzed:2: must be text"));
  EXPECT_THAT(refusal(std::string(10'000, ',')), HasSubstr("at most 10000 fields"));
  EXPECT_THAT(refusal("a\n\"" + std::string(2 << 20, 'x') + "\""),
              HasSubstr("fuzzed:2: a field must have at most 1048576 bytes"));
  EXPECT_THAT(refusal(std::string(2 << 20, 'x')), HasSubstr("at most 1048576 bytes"));
}

TEST(Csv, AgreesWithPythonsModuleOnRandomTables) {
  const TempFolder folder;
  // Fields are joined by \x1F and rows by \x1E, which none of them holds.
  const std::string said = testing::run_python(folder.path(), R"(
import csv, random
random.seed(1)
letters = ['a', 'b', ',', '"', '\n', '\r\n', ' ', 'é', "'", ';']
for number in range(40):
    rows = [[''.join(random.choices(letters, k=random.randrange(1, 6))) for _ in range(4)] for _ in range(9)]
    rows = [['x' + field for field in row] for row in rows]
    with open(f'{number}.csv', 'w', newline='', encoding='utf-8') as file:
        quoting = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL][number % 2]
        csv.writer(file, quoting=quoting, lineterminator=['\r\n', '\n'][number // 2 % 2]).writerows(rows)
    with open(f'{number}.csv', newline='', encoding='utf-8') as file:
        read = list(csv.reader(file))
    assert read == rows
    with open(f'{number}.txt', 'w', newline='', encoding='utf-8') as file:
        file.write('\x1e'.join('\x1f'.join(row) for row in read))
)");
  ASSERT_EQ(said, "");
  for (int number = 0; number < 40; ++number) {
    const std::string base = folder.file(std::to_string(number));
    std::string joined;
    for (const auto& row : rows_of(core::read_file(base + ".csv", 1 << 20))) {
      if (!joined.empty()) joined += '\x1E';
      for (size_t i = 0; i < row.size(); ++i) joined += (i > 0 ? "\x1F" : "") + row[i];
    }
    EXPECT_EQ(joined, core::read_file(base + ".txt", 1 << 20)) << number;
  }
}

TEST(Csv, DamagedTablesAreReadOrRefused) {
  std::string text = "path,label\n";
  for (int i = 0; i < 20; ++i)
    text += "\"images/" + std::to_string(i) + ".png\",\"a \"\"b\"\"\"\r\n";
  const auto counts = testing::fuzz<DataError>(text, 3000, [](std::span<const std::byte> bytes) {
    rows_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 100);
}

}  // namespace
}  // namespace vitrail::io
