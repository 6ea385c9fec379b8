#include "vitrail/core/checksum.h"

#include <string>

#include <gtest/gtest.h>

#include "vitrail/core/philox.h"

namespace vitrail::core {
namespace {

using Checksum = uint32_t (*)(const void*, size_t, uint32_t);

/// RFC 3720 B.4, and the check value of the CRC catalogue.
void expect_known_answers(Checksum checksum) {
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) rising += static_cast<char>(i), falling += static_cast<char>(31 - i);
  const unsigned char read_command[48] = {
      0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
      0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0};
  EXPECT_EQ(checksum(std::string(32, '\0').data(), 32, 0), 0x8A9136AAu);
  EXPECT_EQ(checksum(std::string(32, '\xFF').data(), 32, 0), 0x62A8AB43u);
  EXPECT_EQ(checksum(rising.data(), 32, 0), 0x46DD794Eu);
  EXPECT_EQ(checksum(falling.data(), 32, 0), 0x113FDB5Cu);
  EXPECT_EQ(checksum(read_command, sizeof read_command, 0), 0xD9963A56u);
  EXPECT_EQ(checksum("123456789", 9, 0), 0xE3069283u);
  EXPECT_EQ(checksum("", 0, 0), 0u);
}

TEST(Checksum, TableGivesTheAnswersOfRfc3720) { expect_known_answers(crc32c_table); }

TEST(Checksum, InstructionGivesTheAnswersOfRfc3720) {
  if (!has_crc32c_hardware()) GTEST_SKIP() << "this processor has no SSE 4.2";
  expect_known_answers(crc32c_hardware);
}

TEST(Checksum, WhatIsUsedGivesTheAnswersOfRfc3720) { expect_known_answers(crc32c); }

TEST(Checksum, BothWaysAgreeForEveryLengthAndAlignment) {
  if (!has_crc32c_hardware()) GTEST_SKIP() << "this processor has no SSE 4.2";
  std::string data(300, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(mix64(i));
  for (size_t start = 0; start < 9; ++start)
    for (size_t bytes = 0; start + bytes <= data.size(); ++bytes)
      ASSERT_EQ(crc32c_table(data.data() + start, bytes),
                crc32c_hardware(data.data() + start, bytes));
}

TEST(Checksum, ContinuesWhereItStopped) {
  const std::string data = "a checkpoint is written in pieces";
  for (size_t cut = 0; cut <= data.size(); ++cut) {
    const uint32_t first = crc32c(data.data(), cut);
    EXPECT_EQ(crc32c(data.data() + cut, data.size() - cut, first),
              crc32c(data.data(), data.size()));
  }
}

TEST(Checksum, NoticesEverySingleFlippedBit) {
  std::string data = "0123456789abcdef";
  const uint32_t whole = crc32c(data.data(), data.size());
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(crc32c(data.data(), data.size()), whole);
    data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(Checksum, MaskedFormCanBeUndone) {
  // The inverse that TFRecord's readers apply.
  const uint32_t rotated = masked_crc32c("123456789", 9) - 0xA282EAD8u;
  EXPECT_EQ((rotated >> 17) | (rotated << 15), 0xE3069283u);
}

}  // namespace
}  // namespace vitrail::core
