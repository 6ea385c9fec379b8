// Codecs and fill values by themselves.

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/python.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/io/codec.h"
#include "vitrail/io/codec_parts.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;
using core::DType;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;
using Kind = ByteCodec::Kind;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string number(uint32_t value) { return {reinterpret_cast<const char*>(&value), 4}; }

std::string decoded(std::vector<ByteCodec> codecs, const std::string& stored, size_t bytes) {
  static const std::string file = "f/0.0";
  std::string plain(bytes, '\0');
  decode_bytes(codecs, bytes_of(stored), std::as_writable_bytes(std::span(plain)), {file, 0});
  return plain;
}

TEST(ZarrCodec, Crc32cTellsAFlippedBit) {
  std::string stored = "some values";
  stored += number(core::crc32c(stored.data(), stored.size()));
  EXPECT_EQ(decoded({{Kind::crc32c}}, stored, 11), "some values");
  for (size_t at = 0; at < stored.size(); ++at) {
    std::string flipped = stored;
    flipped[at] ^= 16;
    EXPECT_THAT(message_of<DataError>([&] { decoded({{Kind::crc32c}}, flipped, 11); }),
                AllOf(HasSubstr("f/0.0"), HasSubstr("CRC-32C")));
  }
  EXPECT_THAT(message_of<DataError>([&] { decoded({{Kind::crc32c}}, "abc", 1); }),
              HasSubstr("too short"));
}

TEST(ZarrCodec, Xxh32EqualsItsTestVectors) {
  // From xxHash's command line, `xxhsum -H32` (seed 0).
  EXPECT_EQ(xxh32({}, 0), 0x02CC5D05u);
  EXPECT_EQ(xxh32(bytes_of("abc"), 0), 0x32D153FFu);
}

TEST(ZarrCodec, Lz4BlocksTellAFlippedBit) {
  const std::string text = "twenty-two plain bytes";
  const uint32_t sum = xxh32(bytes_of(text), 0x9747b28c) & 0x0FFFFFFF;
  std::string stored = "LZ4Block\x16" + number(22) + number(22) + number(sum) + text;
  EXPECT_EQ(decoded({{Kind::lz4_blocks}}, stored, 22), text);
  stored[30] ^= 1;
  EXPECT_THAT(message_of<DataError>([&] { decoded({{Kind::lz4_blocks}}, stored, 22); }),
              AllOf(HasSubstr("f/0.0"), HasSubstr("checksum")));
}

TEST(ZarrCodec, SizesThatCannotBeAreRefusedBeforeMemoryIsAsked) {
  const std::string file = "f/0.0";
  const auto refused = [&](std::vector<ByteCodec> codecs, int64_t stored, int64_t plain) {
    return !message_of<DataError>([&] {
              check_expansion(codecs, stored, plain, {file, 0});
            }).empty();
  };
  EXPECT_TRUE(refused({}, 10, 11));
  EXPECT_FALSE(refused({}, 11, 11));
  EXPECT_TRUE(refused({{Kind::lz4}}, 10, 2561));
  EXPECT_FALSE(refused({{Kind::lz4}}, 10, 2560));
  EXPECT_TRUE(refused({{Kind::gzip}, {Kind::crc32c}}, 10, 10321));
  EXPECT_TRUE(refused({{Kind::zstd}}, 40000, int64_t{1} << 31));
  EXPECT_TRUE(refused({{Kind::zstd}}, 1 << 20, 1000));  // a file far larger than its chunk
  EXPECT_FALSE(refused({{Kind::zstd}}, 1 << 20, 1 << 20));
}

TEST(ZarrCodec, MoreOrFewerBytesThanAChunkHasAreRefused) {
  const std::string lz4_of_three = number(3) + "\x30" + "abc";
  EXPECT_EQ(decoded({{Kind::lz4}}, lz4_of_three, 3), "abc");
  EXPECT_THAT(message_of<DataError>([&] { decoded({{Kind::lz4}}, lz4_of_three, 2); }),
              HasSubstr("2 bytes"));
  EXPECT_THAT(message_of<DataError>([&] { decoded({{Kind::lz4}}, lz4_of_three, 4); }),
              HasSubstr("4 bytes"));
  EXPECT_EQ(decoded({{Kind::shuffle, 2}}, "acebdf", 6), "abcdef");
  EXPECT_EQ(decoded({{Kind::shuffle, 4}}, "abcdefg", 7), "abcdefg");  // one element, three left
}

uint64_t fill_bits(const Json& value, DType dtype) {
  const auto fill = parse_fill(value, dtype, "f");
  uint64_t bits = 0;
  std::memcpy(&bits, fill.data(), 8);
  return bits;
}

/// The value of 16 bits by the definition of IEEE 754.
double value_of_16_bits(unsigned bits, int exponent_bits, int fraction_bits) {
  const int exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = static_cast<int>(bits) & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double size =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
  return (bits & 0x8000) != 0 ? -size : size;
}

TEST(ZarrFill, EveryFiniteHalfAndBfloat16KeepsItsBits) {
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7C00) != 0x7C00)
      wrong += fill_bits(Json(value_of_16_bits(bits, 5, 10)), DType::f16) != bits;
    if ((bits & 0x7F80) != 0x7F80)
      wrong += fill_bits(Json(value_of_16_bits(bits, 8, 7)), DType::bf16) != bits;
  }
  EXPECT_EQ(wrong, 0);
}

TEST(ZarrFill, RoundsToHalfAsNumPyDoes) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import numpy as np
rng = np.random.default_rng(1)
values = list(rng.standard_normal(500) * 10.0 ** rng.integers(-9, 6, 500))
values += [65519.99, 65520.0, 2.0**-25, 2.0**-25 * 1.01, 2049.0, 2051.0, -1e300, 5e-324]
for v in values:
    with np.errstate(over="ignore"):
        print(repr(float(v)), int(np.float16(v).view(np.uint16)))
)");
  std::istringstream lines(said);
  int count = 0;
  std::string value;
  for (uint64_t bits = 0; lines >> value >> bits; ++count)
    EXPECT_EQ(fill_bits(Json(std::strtod(value.c_str(), nullptr)), DType::f16), bits) << value;
  EXPECT_EQ(count, 508) << said;
}

TEST(ZarrFill, KnowsWordsAndBitsOfFloats) {
  EXPECT_EQ(fill_bits("NaN", DType::f32), std::bit_cast<uint32_t>(std::nanf("")));
  EXPECT_EQ(fill_bits("-Infinity", DType::f16), 0xFC00u);
  EXPECT_EQ(fill_bits("Infinity", DType::bf16), 0x7F80u);
  EXPECT_EQ(fill_bits("0x7fc00001", DType::f32), 0x7fc00001u);
  EXPECT_EQ(fill_bits("0x8001", DType::bf16), 0x8001u);
  EXPECT_EQ(fill_bits(nullptr, DType::i64), 0u);
  EXPECT_EQ(fill_bits(-1, DType::i16), 0xFFFFu);
  EXPECT_EQ(fill_bits(3.0, DType::u8), 3u);
  EXPECT_EQ(fill_bits(true, DType::boolean), 1u);
  for (const Json& wrong : {Json(256), Json(-1), Json(1.5), Json("7"), Json::array(), Json(true)})
    EXPECT_THAT(message_of<DataError>([&] { parse_fill(wrong, DType::u8, "f"); }),
                HasSubstr("fill_value"));
  EXPECT_THROW(parse_fill("0x7fc0", DType::f32, "f"), DataError);
}

}  // namespace
}  // namespace vitrail::io
