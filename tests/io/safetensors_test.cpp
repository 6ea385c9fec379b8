#include "vitrail/io/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::CheckpointError;
using core::DType;
using testing::as_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

std::string with_length(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(length.data(), &size, 8);
  return length + header + data;
}

SafetensorsFile parse(const std::string& file) {
  return SafetensorsFile::parse(as_bytes(file), "fuzzed");
}

template <class Value>
std::vector<Value> values(const SafetensorsFile& file, const std::string& name) {
  std::vector<Value> result(file.bytes(name).size() / sizeof(Value));
  std::memcpy(result.data(), file.bytes(name).data(), file.bytes(name).size());
  return result;
}

TEST(Safetensors, ReadsWhatItWrote) {
  const TempFolder folder;
  const float weights[] = {1, 2, 3, 4, 5, 6};
  const int64_t step = -7;
  const uint8_t flags[] = {1, 0, 1};
  const auto written = write_safetensors(folder.file("a"),
                                         {{"flags", DType::boolean, {3}, flags},
                                          {"weights", DType::f32, {2, 3}, weights},
                                          {"step", DType::i64, {}, &step},
                                          {"none", DType::bf16, {0, 4}, nullptr}},
                                         {{"format", "pt"}, {"quote", "\"\n"}});
  const auto file = SafetensorsFile::open(folder.file("a"));
  EXPECT_EQ(values<float>(file, "weights"), std::vector<float>(weights, weights + 6));
  EXPECT_EQ(values<int64_t>(file, "step"), std::vector<int64_t>{step});
  EXPECT_EQ(values<uint8_t>(file, "flags"), (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_TRUE(file.bytes("none").empty());
  EXPECT_THAT(file.info("weights").shape, ElementsAre(2, 3));
  EXPECT_EQ(file.info("weights").count(), 6);
  EXPECT_TRUE(file.info("step").shape.empty());
  EXPECT_EQ(file.metadata().at("quote"), "\"\n");
  EXPECT_EQ(file.data_offset() % 8, 0);
  // Wide types first.
  EXPECT_THAT(file.names(), ElementsAre("step", "weights", "none", "flags"));
  const std::string bytes = core::read_file(folder.file("a"), 10'000);
  for (const auto& tensor : written) {
    EXPECT_EQ(tensor.offset, file.data_offset() + file.info(tensor.name).begin);
    EXPECT_EQ(tensor.crc32c,
              core::crc32c(bytes.data() + tensor.offset, static_cast<size_t>(tensor.bytes)));
  }
  EXPECT_EQ(folder.entries(), 1);
}

TEST(Safetensors, AFileWithoutTensorsIsFine) {
  const TempFolder folder;
  write_safetensors(folder.file("a"), {});
  EXPECT_TRUE(SafetensorsFile::open(folder.file("a")).names().empty());
  EXPECT_TRUE(parse(with_length("{}", "")).names().empty());
}

TEST(Safetensors, StreamsInPiecesAndGivesTheOffsetsBefore) {
  const TempFolder folder;
  const std::string data = "0123456789abcdef";
  const std::vector<TensorToWrite> tensors = {
      {"a", DType::u8, {3}}, {"empty", DType::f32, {0}}, {"b", DType::u8, {13}}};
  SafetensorsWriter writer(folder.file("a"), SafetensorsLayout::plan(tensors));
  const auto& places = writer.layout().places;
  const int64_t start = static_cast<int64_t>(writer.layout().header.size());
  EXPECT_EQ(places[0].offset, start);
  EXPECT_EQ(places[2].offset, start + 3);
  EXPECT_EQ(writer.layout().file_bytes, start + 16);
  writer.append("a", data.data(), 3);
  for (int i = 3; i < 16; ++i) writer.append("b", data.data() + i, 1);
  const auto written = writer.finish();
  EXPECT_EQ(written[2].crc32c, core::crc32c(data.data() + 3, 13));
  const auto file = SafetensorsFile::open(folder.file("a"));
  EXPECT_THAT(file.names(), ElementsAre("a", "empty", "b"));
  EXPECT_EQ(values<char>(file, "b"), std::vector<char>(data.begin() + 3, data.end()));
}

TEST(Safetensors, WriterRefusesMissingExtraAndMisplacedBytes) {
  const TempFolder folder;
  const std::vector<TensorToWrite> tensors = {{"a", DType::u8, {2}}, {"b", DType::u8, {2}}};
  SafetensorsWriter writer(folder.file("a"), SafetensorsLayout::plan(tensors));
  EXPECT_THROW(writer.append("b", "xx", 2), CheckpointError);
  EXPECT_THROW(writer.append("a", "xxx", 3), CheckpointError);
  writer.append("a", "xx", 2);
  EXPECT_THROW(writer.append("a", "x", 1), CheckpointError);
  EXPECT_THAT(message_of<CheckpointError>([&] { writer.finish(); }), HasSubstr("'b' is not whole"));
  writer.append("b", "xx", 2);
  writer.finish();
  EXPECT_THROW(writer.finish(), CheckpointError);
}

TEST(Safetensors, PlanRefusesBadNamesAndSizes) {
  const auto refused = [](std::vector<TensorToWrite> tensors) {
    EXPECT_THROW(SafetensorsLayout::plan(tensors), core::Error);
  };
  refused({{"a", DType::u8, {1}}, {"a", DType::u8, {1}}});
  refused({{"__metadata__", DType::u8, {1}}});
  refused({{"\xff", DType::u8, {1}}});
  refused({{"a", DType::u8, {-1}}});
  refused({{"a", DType::f32, {int64_t{1} << 40, int64_t{1} << 40}}});
  refused({{"a", DType::u8, {INT64_MAX}}, {"b", DType::u8, {1}}});
}

TEST(Safetensors, AFullDiskKeepsTheOldFile) {
  const TempFolder folder;
  EXPECT_THAT(
      message_of<core::Error>([&] { SafetensorsWriter("/dev/full", SafetensorsLayout::plan({})); }),
      HasSubstr("No space left on device"));
  EXPECT_THAT(message_of<core::Error>([&] { write_safetensors(folder.file("no/a"), {}); }),
              HasSubstr("No such file"));
}

struct BadFile {
  const char* header;
  int data_bytes;
  const char* message;  // part of it
};

constexpr const char* kGood = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

const BadFile kBadFiles[] = {
    {R"([])", 0, "must start with '{'"},
    {R"( {})", 0, "must start with '{'"},
    {R"()", 0, "must start with '{'"},
    {R"({)", 0, "must be JSON"},
    {R"({} x)", 0, "must be JSON"},
    {R"({}{})", 0, "must be JSON"},
    {R"({"a":1})", 0, "must be an object but got a number"},
    {R"({"a":null})", 0, "must be an object but got null"},
    {R"({"a":[]})", 0, "must be an object but got an array"},
    {R"({"a":{}})", 0, "must have dtype, shape and data_offsets"},
    {R"({"a":{"dtype":"F32","shape":[2]}})", 0, "must have dtype, shape and data_offsets"},
    {R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", 8, "but got 'F33'"},
    {R"({"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}})", 8, "but got 'f32'"},
    {R"({"a":{"dtype":5,"shape":[2],"data_offsets":[0,8]}})", 8, "dtype must not be a number"},
    {R"({"a":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}})", 8,
     "dtype must not be an array"},
    {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "shape must not be a number"},
    {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "zero or more but got -2"},
    {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8,
     "whole numbers but got a fraction"},
    {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", 8,
     "whole numbers but got a string"},
    {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8,
     "whole numbers but got an array"},
    {R"({"a":{"dtype":"F32","shape":[true],"data_offsets":[0,8]}})", 8,
     "whole numbers but got true or false"},
    {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8, "63 bits"},
    {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8,
     "must fit in 64 bits"},
    {R"({"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,8]}})", 8,
     "must fit in 64 bits"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "two numbers but got 1"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "two numbers but got 3"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "must span 8 bytes"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}})", 7,
     "must span 8 bytes but got [0, 7]"},
    {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "must span 12 bytes"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "must start at byte 0"},
    {kGood, 7, "must end within the 7 bytes"},
    {kGood, 9, "must cover the 9 bytes"},
    {R"({})", 1, "must cover the 1 bytes"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
     5, "tensor 'b': must start at byte 2"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
     3, "tensor 'b': must start at byte 2"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
     2, "must start at byte 2"},
    {R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
     2, "must start at byte"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     2, "tensor 'a': must appear once"},
    {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1,
     "key 'dtype' must appear once"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})", 1, "but got 'more'"},
    {R"({"__metadata__":{"a":1}})", 0, "metadata must be strings but got a number"},
    {R"({"__metadata__":{"a":{}}})", 0, "metadata must be strings but got an object"},
    {R"({"__metadata__":[]})", 0, "must be an object"},
    {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "key 'a' must appear once"},
    {R"({"__metadata__":{},"__metadata__":{}})", 0, "must appear once"},
    {"{\"\xff\":{}}", 0, "must be JSON"},
};

TEST(Safetensors, RefusesEveryBadHeaderAndSaysWhy) {
  for (const BadFile& bad : kBadFiles) {
    const std::string file =
        with_length(bad.header, std::string(static_cast<size_t>(bad.data_bytes), 'x'));
    const std::string message = message_of<CheckpointError>([&] { parse(file); });
    EXPECT_THAT(message, HasSubstr(bad.message)) << bad.header;
    EXPECT_THAT(message, HasSubstr("[safetensors] fuzzed: ")) << bad.header;
  }
}

TEST(Safetensors, TakesTheGoodFormsBesideTheBadOnes) {
  EXPECT_EQ(parse(with_length(kGood, "12345678")).info("a").count(), 2);
  EXPECT_EQ(parse(with_length(std::string(kGood) + "   ", "12345678")).info("a").count(), 2);
  const std::string unordered =
      R"({"b":{"shape":[],"data_offsets":[2,3],"dtype":"U8"},"__metadata__":{"x":"y"},)"
      R"("e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  EXPECT_THAT(parse(with_length(unordered, "123")).names(), ElementsAre("a", "e", "b"));
}

TEST(Safetensors, RefusesAHeaderLengthBeyondFileOrLimit) {
  EXPECT_THAT(message_of<CheckpointError>([] { parse(""); }), HasSubstr("at least 8 bytes"));
  EXPECT_THAT(message_of<CheckpointError>([] { parse("1234567"); }), HasSubstr("at least 8 bytes"));
  std::string file = with_length(kGood, "12345678");
  file[0] = 127;
  EXPECT_THAT(message_of<CheckpointError>([&] { parse(file); }), HasSubstr("cut short"));
  file[7] = '\x7f';
  EXPECT_THAT(message_of<CheckpointError>([&] { parse(file); }), HasSubstr("at most 100000000"));
  file[7] = '\xff';
  EXPECT_THROW(parse(file), CheckpointError);
}

TEST(Safetensors, DeepNestingIsRefusedAtOnce) {
  EXPECT_THROW(parse(with_length("{\"a\":" + std::string(5'000'000, '['), "")), CheckpointError);
}

TEST(Safetensors, NamesFileAndTensorThatIsMissing) {
  const std::string file = with_length(kGood, "12345678");
  const std::string message = message_of<CheckpointError>([&] { parse(file).info("head.weight"); });
  EXPECT_THAT(message, HasSubstr("fuzzed: tensor 'head.weight'"));
  EXPECT_THAT(message_of<CheckpointError>([] { SafetensorsFile::open("/nowhere/a.safetensors"); }),
              HasSubstr("/nowhere/a.safetensors"));
}

TEST(Safetensors, SurvivesTwentyThousandDamagedFiles) {
  const std::vector<TensorToWrite> tensors = {{"blocks.0.weight", DType::f32, {3, 4}},
                                              {"step", DType::i64, {}},
                                              {"mask", DType::boolean, {5}}};
  const SafetensorsLayout layout = SafetensorsLayout::plan(tensors, {{"format", "pt"}});
  const std::string file = layout.header + std::string(12 * 4 + 8 + 5, 'x');
  const auto counts =
      testing::fuzz<CheckpointError>(file, 20'000, [](std::span<const std::byte> bytes) {
        const auto parsed = SafetensorsFile::parse(bytes, "fuzzed");
        size_t total = 0;
        for (const std::string& name : parsed.names()) total += parsed.bytes(name).size();
        ASSERT_EQ(static_cast<int64_t>(total),
                  static_cast<int64_t>(bytes.size()) - parsed.data_offset());
      });
  EXPECT_GT(counts.refused, 15'000);
}

TEST(Safetensors, PythonReadsWhatWeWrote) {
  const TempFolder folder;
  std::vector<float> weights(12);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i) / 3.0f;
  const uint16_t halves[] = {0x3F80, 0xC000};  // bf16 1 and -2
  const uint8_t flags[] = {1, 0, 1};
  const double tiny = 1e-300;
  write_safetensors(folder.file("a.safetensors"),
                    {{"flags", DType::boolean, {3}, flags},
                     {"nested.weights", DType::f32, {3, 4}, weights.data()},
                     {"halves", DType::bf16, {2}, halves},
                     {"scalar", DType::f64, {}, &tiny},
                     {"none", DType::i32, {0, 3}, nullptr},
                     {"umlaut ü \"x\"", DType::u8, {1}, flags}},
                    {{"format", "pt"}, {"note", "grüße"}});
  const std::string said = testing::run_python(folder.path(), R"(
import torch
from safetensors import safe_open
with safe_open("a.safetensors", "pt") as f:
    t = {k: f.get_tensor(k) for k in f.keys()}
    assert f.metadata() == {"format": "pt", "note": "grüße"}, f.metadata()
assert t["nested.weights"].equal((torch.arange(12, dtype=torch.float32) / 3).view(3, 4)), t
assert t["halves"].equal(torch.tensor([1, -2], dtype=torch.bfloat16))
assert t["flags"].equal(torch.tensor([True, False, True]))
assert t["scalar"].dtype == torch.float64 and t["scalar"].shape == () and t["scalar"].item() == 1e-300
assert t["none"].shape == (0, 3) and t["none"].dtype == torch.int32
assert t['umlaut ü "x"'].tolist() == [1] and len(t) == 6
print("fine")
)");
  EXPECT_EQ(said, "fine\n");
}

TEST(Safetensors, WeReadWhatPythonWrote) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import torch
from safetensors.torch import save_file
types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
         "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
         "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64}
tensors = {k: torch.tensor([[1, 0, 1]]).to(t) for k, t in types.items()}
tensors["ramp"] = torch.arange(1000, dtype=torch.float32).view(10, 100)
tensors["scalar"] = torch.tensor(5)
tensors["none"] = torch.zeros(3, 0)
save_file(tensors, "a.safetensors", {"format": "pt"})
print("fine")
)");
  ASSERT_EQ(said, "fine\n");
  const auto file = SafetensorsFile::open(folder.file("a.safetensors"));
  EXPECT_EQ(file.names().size(), 16u);
  for (const DType dtype :
       {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16,
        DType::i8, DType::u64, DType::u32, DType::u16, DType::u8, DType::boolean}) {
    const SafetensorsInfo& info = file.info(safetensors_dtype(dtype));
    EXPECT_EQ(info.dtype, dtype);
    EXPECT_THAT(info.shape, ElementsAre(1, 3));
  }
  EXPECT_THAT(values<double>(file, "F64"), ElementsAre(1.0, 0.0, 1.0));
  EXPECT_THAT(values<uint16_t>(file, "BF16"), ElementsAre(0x3F80, 0, 0x3F80));
  EXPECT_EQ(values<float>(file, "ramp")[567], 567.0f);
  EXPECT_THAT(values<int64_t>(file, "scalar"), ElementsAre(5));
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

}  // namespace
}  // namespace vitrail::io
