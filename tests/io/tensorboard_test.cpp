#include "vitrail/io/tensorboard.h"

#include <bit>
#include <cstring>
#include <map>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::message_of;
using testing::TempFolder;

template <class Value>
Value take_raw(std::string_view& text) {
  Value value{};
  if (text.size() < sizeof value) throw std::runtime_error("too short");
  std::memcpy(&value, text.data(), sizeof value);
  text.remove_prefix(sizeof value);
  return value;
}

uint64_t take_varint(std::string_view& text) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(text.at(0));
    text.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

/// A Protocol Buffers message with every field at most once.
struct Parsed {
  std::map<int, uint64_t> numbers;  // varints, and the bits of fixed ones
  std::map<int, std::string> bytes;

  explicit Parsed(std::string_view text) {
    while (!text.empty()) {
      const uint64_t tag = take_varint(text);
      const int field = static_cast<int>(tag >> 3);
      switch (tag & 7) {
        case 0:
          numbers[field] = take_varint(text);
          break;
        case 1:
          numbers[field] = take_raw<uint64_t>(text);
          break;
        case 5:
          numbers[field] = take_raw<uint32_t>(text);
          break;
        case 2: {
          const size_t length = take_varint(text);
          if (length > text.size()) throw std::runtime_error("too short");
          bytes[field] = text.substr(0, length);
          text.remove_prefix(length);
          break;
        }
        default:
          throw std::runtime_error("unknown wire type");
      }
    }
  }
  Parsed message(int field) const { return Parsed(bytes.at(field)); }
  double real(int field) const { return std::bit_cast<double>(numbers.at(field)); }
};

/// The payloads, with both checksums of each verified.
std::vector<Parsed> read_records(const std::string& path) {
  const std::string file = core::read_file(path, 1 << 24);
  std::vector<Parsed> records;
  for (std::string_view rest = file; !rest.empty();) {
    const char* start = rest.data();
    const auto length = take_raw<uint64_t>(rest);
    EXPECT_EQ(take_raw<uint32_t>(rest), core::masked_crc32c(start, 8));
    const std::string_view payload = rest.substr(0, length);
    rest.remove_prefix(length);
    EXPECT_EQ(take_raw<uint32_t>(rest), core::masked_crc32c(payload.data(), payload.size()));
    records.emplace_back(payload);
  }
  return records;
}

TEST(Tensorboard, FileBeginsWithTheVersionAndIsNamedAsExpected) {
  const TempFolder folder;
  const TensorboardWriter writer(folder.file("a/b"));
  EXPECT_THAT(writer.path(),
              MatchesRegex(folder.file("a/b") + "/events\\.out\\.tfevents\\.[0-9]+\\..+\\.[0-9]+"));
  TensorboardWriter second(folder.file("a/b"));
  EXPECT_NE(second.path(), writer.path());
  second.flush();
  const auto records = read_records(second.path());
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].bytes.at(3), "brain.Event:2");
  EXPECT_NEAR(records[0].real(1), core::unix_seconds(), 60.0);
}

TEST(Tensorboard, ScalarsKeepTagStepValueAndTime) {
  const TempFolder folder;
  TensorboardWriter writer(folder.path());
  writer.add_scalar("train/loss", 0, 2.5, 1000.25);
  writer.add_scalar("train/loss", 3'000'000'000, -1e30, 2000.0);
  writer.add_scalar("lr", 7, 1e-3);
  writer.flush();
  const auto records = read_records(writer.path());
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(records[1].real(1), 1000.25);
  EXPECT_EQ(records[1].numbers.at(2), 0u);
  EXPECT_EQ(records[2].numbers.at(2), 3'000'000'000u);
  const auto value = [&](size_t i) { return records[i].message(5).message(1); };
  EXPECT_EQ(value(1).bytes.at(1), "train/loss");
  EXPECT_EQ(std::bit_cast<float>(static_cast<uint32_t>(value(1).numbers.at(2))), 2.5f);
  EXPECT_EQ(std::bit_cast<float>(static_cast<uint32_t>(value(2).numbers.at(2))), -1e30f);
  EXPECT_EQ(value(3).bytes.at(1), "lr");
  EXPECT_NEAR(records[3].real(1), core::unix_seconds(), 60.0);
}

TEST(Tensorboard, ImagesAndTextsKeepTheirContent) {
  const TempFolder folder;
  TensorboardWriter writer(folder.path());
  const std::string png(100'000, '\x89');
  writer.add_image("sample", 5, png, 300, 20, 3, 1.0);
  writer.add_text("recipe", 6, "| a | b |\nü", 1.0);
  writer.flush();
  const auto records = read_records(writer.path());
  ASSERT_EQ(records.size(), 3u);
  const Parsed image = records[1].message(5).message(1).message(4);
  EXPECT_EQ(image.numbers, (std::map<int, uint64_t>{{1, 20}, {2, 300}, {3, 3}}));
  EXPECT_EQ(image.bytes.at(4), png);
  const Parsed text = records[2].message(5).message(1);
  EXPECT_EQ(text.bytes.at(1), "recipe");
  EXPECT_EQ(text.message(9).message(1).bytes.at(1), "text");
  EXPECT_EQ(text.message(8).numbers.at(1), 7u);  // DT_STRING
  EXPECT_EQ(text.message(8).message(2).message(2).numbers.at(1), 1u);
  EXPECT_EQ(text.message(8).bytes.at(8), "| a | b |\nü");
}

TEST(Tensorboard, WritesTheRestWhenItEnds) {
  const TempFolder folder;
  std::string path;
  {
    TensorboardWriter writer(folder.path());
    for (int step = 0; step < 5000; ++step) writer.add_scalar("x", step, step);
    path = writer.path();
  }
  EXPECT_EQ(read_records(path).size(), 5001u);
}

TEST(Tensorboard, NamesAFolderThatCannotBeUsed) {
  const TempFolder folder;
  core::write_file_atomic(folder.file("a"), "x");
  EXPECT_THAT(message_of<core::Error>([&] { TensorboardWriter writer(folder.file("a/b")); }),
              HasSubstr(folder.file("a/b")));
}

}  // namespace
}  // namespace vitrail::io
