// Damaged and hostile checkpoints: every byte counts, and no manifest makes the reader do more than
// throw.

#include "checkpoint_sample.h"
#include "vitrail/core/checksum.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_manifest.h"

namespace vitrail::train {

namespace {

using ::testing::HasSubstr;

class CheckpointDamage : public ::testing::Test {
 protected:
  void SetUp() override { save_once(folder_.path(), 2, 1, sample_state(1)); }
  std::string path(const std::string& file) const { return folder_ / ("step-00000001/" + file); }
  TemporaryFolder folder_;
};

TEST_F(CheckpointDamage, EveryFlippedByteIsFound) {
  int64_t flips = 0;
  for (const std::string& file : names_in(folder_ / "step-00000001")) {
    const size_t size = read_bytes(path(file)).size();
    for (size_t offset = 0; offset < size; ++offset, ++flips) {
      const int bit = static_cast<int>(offset % 8);
      flip(path(file), offset, bit);
      ASSERT_NE(why_invalid(folder_ / "step-00000001", true), "") << file << " byte " << offset;
      flip(path(file), offset, bit);
    }
  }
  EXPECT_EQ(why_invalid(folder_ / "step-00000001", true), "");
  fmt::print("{} flipped bytes, all found\n", flips);
}

TEST_F(CheckpointDamage, EveryTruncationIsFoundWithoutReadingTheTensors) {
  for (const std::string& file : names_in(folder_ / "step-00000001")) {
    const std::string original = read_bytes(path(file));
    for (size_t length = original.size(); length-- > 0;) {
      std::filesystem::resize_file(path(file), length);
      ASSERT_NE(why_invalid(folder_ / "step-00000001", false), "") << file << " cut to " << length;
    }
    write_bytes(path(file), original + '\0');
    EXPECT_NE(why_invalid(folder_ / "step-00000001", false), "") << file << " made longer";
    write_bytes(path(file), original);
  }
}

TEST_F(CheckpointDamage, AReadNamesTheFileAndTheTensor) {
  const std::string file = path("rank-00000.safetensors");
  flip(file, read_bytes(file).size() - 1);
  const CheckpointReader reader(folder_ / "step-00000001");
  int damaged = 0;
  for (const std::string& name : reader.names()) {
    const std::string error = checkpoint_error([&] { reader.read(name); });
    if (error.empty()) continue;
    ++damaged;
    EXPECT_THAT(error, HasSubstr("rank-00000.safetensors: tensor " + name + " must have checksum"));
  }
  EXPECT_EQ(damaged, 1);
}

TEST_F(CheckpointDamage, AFolderOrPipeInPlaceOfAFileIsRefused) {
  std::filesystem::remove(path("rank-00001.safetensors"));
  std::filesystem::create_directory(path("rank-00001.safetensors"));
  EXPECT_THAT(why_invalid(folder_ / "step-00000001", false), HasSubstr("must be a regular file"));
  std::filesystem::remove(path("rank-00001.safetensors"));
  ASSERT_EQ(std::system(("mkfifo " + path("rank-00001.safetensors")).c_str()), 0);
  EXPECT_THAT(why_invalid(folder_ / "step-00000001", false), HasSubstr("must be a regular file"));
}

TEST_F(CheckpointDamage, TheFolderNameMustTellTheStep) {
  std::filesystem::rename(folder_ / "step-00000001", folder_ / "step-00000009");
  EXPECT_THAT(why_invalid(folder_ / "step-00000009", false),
              HasSubstr("name says step 9 but the manifest says 1"));
}

/// `text` without its last line, then with the right checksum again: what a hostile writer would
/// do.
std::string seal(const std::string& body) {
  return body + fmt::format("\"manifest_crc32c\": \"{:08x}\"\n}}\n",
                            core::crc32c(body.data(), body.size()));
}

std::string body_of(const std::string& text) {
  return text.substr(0, text.rfind("\"manifest_crc32c\""));
}

constexpr const char* kGood = R"({
"format_version": 1, "step": 1, "update_count": 1, "skipped_updates": 0, "epoch": 0, "batch": 0, "seed": 0,
"wall_seconds": 0.5, "mesh": "", "recipe": "", "program": "", "created_utc": "",
"files": {"a.st": {"bytes": 40, "header_bytes": 16, "header_crc32c": "00000000"}},
"tensors": {"x": {"dtype": "f32", "shape": [2, 3], "regions": [
 {"file": "a.st", "offset": 16, "bytes": 8, "start": 0, "count": 2, "crc32c": "00000000"},
 {"file": "a.st", "offset": 24, "bytes": 16, "start": 2, "count": 4, "crc32c": "00000000"}]}},
)";

struct BadManifest {
  const char* from;
  const char* to;
  const char* message;
};

TEST(CheckpointManifest, RefusesWhatDoesNotAddUp) {
  EXPECT_NO_THROW(parse_manifest(seal(kGood), "m"));
  const BadManifest table[] = {
      {"\"format_version\": 1", "\"format_version\": 3", "newer vitrail"},
      {"\"format_version\": 1", "\"format_version\": \"1\"", "'format_version' must be an integer"},
      {"\"step\": 1", "\"step\": -1", "'step' must be an integer from 0"},
      {"\"step\": 1", "\"step\": 1.5", "'step' must be an integer"},
      {"\"step\": 1", "\"step\": 18446744073709551615", "'step' must be an integer"},
      {"\"step\": 1", "\"step\": 99999999999999999999999", "'step' must be an integer"},
      {"\"step\": 1,", "", "'step' is missing"},
      {"\"seed\": 0", "\"seed\": -1", "'seed'"},
      {"\"wall_seconds\": 0.5", "\"wall_seconds\": null", "'wall_seconds'"},
      {"\"wall_seconds\": 0.5", "\"wall_seconds\": 1e999", "not valid JSON"},
      {"\"mesh\": \"\"", "\"mesh\": 3", "'mesh' must be a string"},
      {"\"mesh\": \"\"", "\"mesh\": \"\", \"mesh\": \"\"", "'mesh' appears twice"},
      {"\"start\": 2", "\"start\": 3", "a hole"},
      {"\"start\": 2", "\"start\": 1", "an overlap"},
      {"\"start\": 2", "\"start\": 0", "an overlap"},
      {"\"count\": 4", "\"count\": 5", "past the tensor's 6 elements"},
      {"\"count\": 4", "\"count\": 3", "of 3 elements of f32 must have 12 bytes"},
      {"\"count\": 4", "\"count\": 0", "'count' must be an integer from 1"},
      {"\"count\": 4", "\"count\": 9223372036854775807", "'count' must be an integer"},
      {"\"bytes\": 16", "\"bytes\": 12", "must have 16 bytes but got 12"},
      {"\"shape\": [2, 3]", "\"shape\": [2, 4]", "hold 6 of the tensor's 8 elements"},
      {"\"shape\": [2, 3]", "\"shape\": [2, -3]", "'shape' must be an integer from 0"},
      {"\"shape\": [2, 3]", "\"shape\": [1152921504606846976, 1152921504606846976]", "too large"},
      {"\"shape\": [2, 3]", "\"shape\": [4611686018427387904]", "'shape' must be an integer"},
      {"\"shape\": [2, 3]", "\"shape\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,3]", "at most 16"},
      {"\"shape\": [2, 3]", "\"shape\": {}", "'shape' must be a list"},
      {"\"dtype\": \"f32\"", "\"dtype\": \"f33\"", "unknown dtype 'f33'"},
      {"\"offset\": 24", "\"offset\": 23", "a region starts at 23 where 24"},
      {"\"offset\": 24", "\"offset\": 25", "a region starts at 25 where 24"},
      {"\"offset\": 16", "\"offset\": 8", "a region starts at 8 where 16"},
      {"\"bytes\": 40", "\"bytes\": 41", "has 41 bytes but its regions end at 40"},
      {"\"bytes\": 40", "\"bytes\": 39", "has 39 bytes but its regions end at 40"},
      {"\"file\": \"a.st\", \"offset\": 24", "\"file\": \"b.st\", \"offset\": 24",
       "unknown file 'b.st'"},
      {"\"crc32c\": \"00000000\"}]", "\"crc32c\": \"0000000g\"}]", "8 hexadecimal digits"},
      {"\"crc32c\": \"00000000\"}]", "\"crc32c\": 0}]", "must be a string"},
      {"\"tensors\": {\"x\"", "\"tensors\": {\"\"", "name must have 1 to 4096"},
      {"\"x\": {", "\"x\": [[[[[[[[[[]]]]]]]]]], \"y\": {", "nested deeper"},
      {"\"x\": {", "\"x\": 1, \"x\": {", "'x' appears twice"},
      {"\"tensors\": {", "\"tensors\": [{", "not valid JSON"},
  };
  for (const auto& [from, to, message] : table) {
    std::string body = kGood;
    body.replace(body.find(from), std::string(from).size(), to);
    EXPECT_THAT(checkpoint_error([&] { parse_manifest(seal(body), "m"); }), HasSubstr(message))
        << to;
  }
}

constexpr const char* kGood2 = R"({
"format_version": 2, "step": 1, "update_count": 1, "skipped_updates": 0, "epoch": 0, "batch": 0, "seed": 0,
"wall_seconds": 0.5, "mesh": "", "recipe": "", "program": "", "created_utc": "",
"files": {"a.st": {"bytes": 48, "header_bytes": 16, "header_crc32c": "00000000"},
 "b.st": {"bytes": 8388624, "header_bytes": 16, "header_crc32c": "00000000"}},
"tensors": {"x": {"dtype": "f32", "shape": [2, 4],
 "boxes": [[[0, 0], [2, 1]], [[0, 1], [1, 3]], [[1, 1], [1, 3]]], "regions": [
 [0, 16, 0, 0, 2, "00000000"], [0, 24, 1, 0, 1, "00000000"], [0, 28, 1, 1, 2, "00000000"],
 [0, 36, 2, 0, 3, "00000000"]]},
 "y": {"dtype": "f32", "shape": [2097152], "regions": [
 [1, 16, 0, 0, 2097152, "0000000000000000000000000000000000000000000000000000000000000000"]]}},
)";

TEST(CheckpointManifest, RefusesBoxesThatDoNotTileTheirTensor) {
  EXPECT_NO_THROW(parse_manifest(seal(kGood2), "m"));
  const BadManifest table[] = {
      {"[[0, 0], [2, 1]]", "[[0, 0], [2, 2]]", "boxes hold more than the tensor's 8 elements"},
      {"[[0, 0], [2, 1]]", "[[0, 0], [1, 1]]", "boxes hold 7 of the tensor's 8 elements (a hole)"},
      {"[[0, 0], [2, 1]]", "[[0, 1], [2, 1]]", "share elements (an overlap)"},
      {"[[0, 1], [1, 3]]", "[[1, 1], [1, 3]]", "share elements (an overlap)"},
      {"[[0, 0], [2, 1]]", "[[1, 0], [2, 1]]", "a box must lie in the tensor's shape [2, 4]"},
      {"[[0, 0], [2, 1]]", "[[0, 0], [2, 0]]", "a box must lie in the tensor's shape"},
      {"[[0, 0], [2, 1]]", "[[0], [2, 1]]", "a box must lie in the tensor's shape"},
      {"[[0, 0], [2, 1]]", "[[0, 0, 0], [2, 1, 1]]", "a box must lie in the tensor's shape"},
      {"[[0, 0], [2, 1]]", "[[0, -1], [2, 1]]", "'boxes' must be an integer from 0"},
      {"[[0, 0], [2, 1]]", "[[0, 1152921504606846976], [2, 1]]", "a box must lie in the tensor's"},
      {"[[0, 0], [2, 1]]", "[[0, 0], [1152921504606846976, 1152921504606846976]]",
       "a box must lie in the tensor's"},
      {"[[0, 0], [2, 1]]", "[[0, 0], [2, 1], [1, 1]]", "a box must be a list [start, shape]"},
      {"[[0, 0], [2, 1]]", "7", "a box must be a list [start, shape]"},
      {"\"boxes\": [[[0, 0]", "\"boxes\": 3, \"old\": [[[0, 0]", "'boxes' must be a list"},
      {"[0, 16, 0, 0, 2,", "[0, 16, 0, 1, 2,", "starts at element 1 of box 0 where element 0"},
      {"[0, 24, 1, 0, 1,", "[0, 24, 1, 1, 1,", "a hole"},
      {"[0, 28, 1, 1, 2,", "[0, 28, 1, 0, 2,", "an overlap"},
      {"[0, 28, 1, 1, 2,", "[0, 28, 2, 1, 2,", "a hole"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0, 4,", "a region ends past"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0, 2,", "regions hold 7 of the tensor's 8 elements"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 3, 0, 3,", "'box' must be an integer from 0 to 2"},
      {"[0, 36, 2, 0, 3,", "[0, 36, -1, 0, 3,", "'box' must be an integer from 0 to 2"},
      {"[0, 36, 2, 0, 3,", "[2, 36, 2, 0, 3,", "'file' must be an integer from 0 to 1"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0, 0,", "'count' must be an integer from 1"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0, 288230376151711745,",
       "'count' must be an integer from 1"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0,", "a region must be a list [file"},
      {"[0, 36, 2, 0, 3,", "[0, 36, 2, 0, 3, 4,", "a region must be a list [file"},
      {"[0, 36, 2, 0, 3,", "[0, 35, 2, 0, 3,", "a region starts at 35 where 36"},
      {"[0, 16, 0, 0, 2,", "[1, 16, 0, 0, 2,", "bytes must follow one another"},
      {"3, \"00000000\"]]}", "3, \"0000000000000000\"]]}", "must have 1 checksums but has 2"},
      {"3, \"00000000\"]]}", "3, \"\"]]}", "8 hexadecimal digits a checksum"},
      {"3, \"00000000\"]]}", "3, \"000000\"]]}", "8 hexadecimal digits a checksum"},
      {"3, \"00000000\"]]}", "3, 0]]}", "must be a string"},
      {"2097152, \"00000000", "2097152, \"", "must have 8 checksums but has 7"},
  };
  for (const auto& [from, to, message] : table) {
    std::string body = kGood2;
    ASSERT_NE(body.find(from), std::string::npos) << from;
    body.replace(body.find(from), std::string(from).size(), to);
    EXPECT_THAT(checkpoint_error([&] { parse_manifest(seal(body), "m"); }), HasSubstr(message))
        << to;
  }
}

/// A grid of boxes, the most a tensor may have, in an order that is not sorted; then one that is one too many.
TEST(CheckpointManifest, ChecksThousandsOfBoxesInNoTime) {
  for (const int64_t side : {64, 65}) {
    Manifest manifest{.info = sample_info(1)};
    int64_t offset = 16;
    for (int64_t i = 0; i < side * side; ++i, offset += 4) {
      const int64_t place = i * 1009 % (side * side);
      add_region(manifest, "x", core::DType::f32, {side, side},
                 {{place / side, place % side}, {1, 1}},
                 {.file = "a.st", .offset = offset, .bytes = 4, .count = 1, .crc32c = {0}});
    }
    manifest.files["a.st"] = {offset, 16, 0};
    const std::string error = checkpoint_error([&] { parse_manifest(to_text(manifest), "m"); });
    if (side == 64)
      EXPECT_EQ(error, "");
    else
      EXPECT_THAT(error, HasSubstr("at most 4096 boxes"));
  }
}

TEST(CheckpointManifest, RefusesFileNamesThatLeaveTheFolder) {
  for (const char* name : {"../a.st", "/etc/passwd", "sub/a.st", ".hidden", "..", "manifest.json",
                           "a\\\\b", "a\\u0000b", "a\\u001b[31m"}) {
    std::string body = kGood;
    for (size_t at = 0; (at = body.find("a.st", at)) != std::string::npos;
         at += std::string(name).size())
      body.replace(at, 4, name);
    EXPECT_THAT(checkpoint_error([&] { parse_manifest(seal(body), "m"); }),
                HasSubstr("not a plain file name"))
        << name;
  }
}

TEST(CheckpointManifest, IsUnchangedByWritingAndReading) {
  for (const char* good : {kGood, kGood2}) {
    const std::string text = to_text(parse_manifest(seal(good), "m"));
    EXPECT_EQ(to_text(parse_manifest(text, "m")), text);
  }
}

/// Two ranks that each hold half of the columns of one tensor, and a tensor that both hold.
void save_columns(const std::string& folder) {
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    auto state = make_state({{"x", {3, 4}, at::kFloat}, {"y", {5}, at::kFloat}}, 1);
    auto pieces = whole_pieces({state[1]}, {2, group.rank()});
    const parallel::Box half{{0, 2 * group.rank()}, {3, 2}};
    pieces.push_back({"x",
                      {3, 4},
                      core::DType::f32,
                      {half, 0, 6},
                      state[0].tensor.view({-1}).narrow(0, 6 * group.rank(), 6),
                      {}});
    CheckpointWriter(group, {.folder = folder, .async = false}).save(pieces, sample_info(1));
  });
}

TEST_F(CheckpointDamage, NoMutatedManifestDoesMoreThanThrow) {
  save_columns(folder_.path());
  const std::string original = body_of(read_bytes(path("manifest.json")));
  const std::string pieces[] = {"0",
                                "-1",
                                "9223372036854775807",
                                "18446744073709551615",
                                "[",
                                "]",
                                "{",
                                "}",
                                "\"",
                                ",",
                                "null",
                                "1e308",
                                "\\u0000",
                                "\xff"};
  int accepted = 0;
  constexpr int kRounds = 20000;
  for (uint32_t round = 0; round < kRounds; ++round) {
    std::string body = original;
    auto random = [&, n = 0u]() mutable { return core::draw({99}, round, n++); };
    for (uint32_t change = 0; change <= random() % 3; ++change) {
      const size_t at = random() % body.size();
      switch (random() % 4) {
        case 0:
          body[at] = static_cast<char>(random());
          break;
        case 1:
          body.erase(at, random() % 20);
          break;
        case 2:
          body.insert(at, pieces[random() % std::size(pieces)]);
          break;
        default:
          body.replace(at, 1, std::to_string(random() % 10));
          break;
      }
    }
    if (!checkpoint_error([&] { parse_manifest(seal(body), "m"); }).empty()) continue;
    ++accepted;
    write_bytes(path("manifest.json"), seal(body));
    checkpoint_error([&] {
      const CheckpointReader reader(folder_ / "step-00000001");
      for (const std::string& name : reader.names()) reader.read(name);
      reader.verify();
    });
  }
  fmt::print(
      "{} mutated manifests, {} of them well formed, none did more than throw CheckpointError\n",
      kRounds, accepted);
  EXPECT_LT(accepted, kRounds / 2);
}

}  // namespace

}  // namespace vitrail::train
