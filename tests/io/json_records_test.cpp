#include "vitrail/io/json_records.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

std::string shown(const JsonValue& value) {
  switch (value.kind) {
    case JsonValue::Kind::null:
      return "null";
    case JsonValue::Kind::boolean:
      return value.integer != 0 ? "true" : "false";
    case JsonValue::Kind::integer:
      return fmt::format("i{}", value.integer);
    case JsonValue::Kind::number:
      return fmt::format("f{}", value.number);
    case JsonValue::Kind::text:
      return "'" + value.text + "'";
    case JsonValue::Kind::numbers:
      return fmt::format("[{}]", fmt::join(value.numbers, " "));
    case JsonValue::Kind::other:
      return "...";
  }
  return "?";
}

/// "annotations[3] id=i7 box=[1 2]" of every record.
std::vector<std::string> records_of(std::string_view text) {
  std::vector<std::string> all;
  parse_json_records(text, "fuzzed", [&](const JsonRecord& record) {
    std::string line = record.where();
    for (const auto& [key, value] : record.fields) line += " " + key + "=" + shown(value);
    all.push_back(line);
  });
  return all;
}

std::string refusal(const std::string& text) {
  return message_of<DataError>([&] { records_of(text); });
}

TEST(JsonRecords, GivesTheObjectsOfTheOutermostList) {
  EXPECT_THAT(records_of(R"([{"a": 1, "b": -2.5}, {}, {"c": "x", "d": null, "e": true}])"),
              ElementsAre("[0] a=i1 b=f-2.5", "[1]", "[2] c='x' d=null e=true"));
}

TEST(JsonRecords, GivesTheObjectsOfEveryListAndTheOutermostObjectLast) {
  EXPECT_THAT(
      records_of(R"({"info": {"year": 1, "list": [{"no": 1}]}, "images": [{"id": 7}, {"id": 8}],
                             "sizes": [1, 2.5], "n": 3, "boxes": [{"box": [1, 2, 3, 4]}]})"),
      ElementsAre("images[0] id=i7", "images[1] id=i8", "boxes[0] box=[1 2 3 4]",
                  " info=... images=... sizes=[1 2.5] n=i3 boxes=..."));
}

TEST(JsonRecords, SkipsWhatLiesDeeper) {
  EXPECT_THAT(records_of(R"([{"polygons": [[1, 2], [3]], "rle": {"counts": [1, 2], "a": 1}, "id": 4,
                              "mixed": [1, "x", 2], "words": ["x"], "objects": [1, {"id": 9}, 5]}])"),
              ElementsAre("[0] polygons=... rle=... id=i4 mixed=... words=... objects=..."));
}

TEST(JsonRecords, KeepsLargeNumbersAndFindsKeys) {
  parse_json_records(R"({"id": 900719925474099301, "big": 18446744073709551615, "none": null})",
                     "x", [](const JsonRecord& record) {
                       EXPECT_EQ(record.find("id")->integer, 900719925474099301);
                       EXPECT_EQ(record.find("big")->number, 18446744073709551615.0);
                       EXPECT_EQ(record.find("none"), nullptr);
                       EXPECT_EQ(record.find("other"), nullptr);
                     });
}

TEST(JsonRecords, RefusesOtherDocuments) {
  EXPECT_THAT(refusal("5"), HasSubstr("fuzzed: must hold a list or an object"));
  EXPECT_THAT(refusal("[{}, 5]"), HasSubstr("fuzzed: [1]: must be an object"));
  EXPECT_THAT(refusal("[[{}]]"), HasSubstr("fuzzed: [0]: must be an object"));
  EXPECT_THAT(refusal(""), AllOf(HasSubstr("fuzzed: must be JSON"), HasSubstr("line 1")));
  EXPECT_THAT(refusal("[{}\n,\n{]"), HasSubstr("line 3"));
  EXPECT_THAT(refusal("[{}] x"), HasSubstr("must be JSON"));
  EXPECT_THAT(refusal("[{\"a\": NaN}]"), HasSubstr("must be JSON"));
  EXPECT_THAT(refusal("[{\"a\": 1e999}]"), HasSubstr("must be JSON"));
  EXPECT_THAT(refusal("[{\"a\": 1, \"a\": 2}]"), HasSubstr("[0]: the key 'a' must appear once"));
  EXPECT_THAT(refusal("{\"b\": [], \"b\": []}"), HasSubstr("fuzzed: the key 'b' must appear once"));
}

TEST(JsonRecords, LimitsKeysAndNumbersAndIsNotHurtByDepth) {
  std::string keys = "[{\"k\": 0";
  for (int i = 0; i < 300; ++i) keys += fmt::format(", \"k{}\": 0", i);
  EXPECT_THAT(refusal(keys + "}]"), HasSubstr("at most 256 keys"));
  std::string numbers = "[{\"a\": [0";
  for (int i = 0; i < 70'000; ++i) numbers += ",0";
  EXPECT_THAT(records_of(numbers + "]}]"), ElementsAre("[0] a=..."));
  EXPECT_THAT(refusal("[{\"a\": " + std::string(1'000'000, '[')), HasSubstr("must be JSON"));
  EXPECT_THAT(
      records_of("[{\"a\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}]"),
      ElementsAre("[0] a=..."));
}

TEST(JsonRecords, DamagedDocumentsAreReadOrRefused) {
  const std::string text =
      R"({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "w": [1, 2, [3]]}], "n": {"a": [{}]}})";
  const auto counts = testing::fuzz<DataError>(text, 3000, [](std::span<const std::byte> bytes) {
    records_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 10);
}

}  // namespace
}  // namespace vitrail::io
