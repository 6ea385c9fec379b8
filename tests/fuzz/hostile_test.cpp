// Broken files of every format, through the readers as a run uses them: each is read, or refused by
// a DataError that names it, within a stated multiple of its size.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/fuzz/allocation_meter.h"
#include "tests/fuzz/damage.h"
#include "tests/fuzz/hostile_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/data/array_reader.h"
#include "vitrail/data/reader.h"

namespace vitrail::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxSamples = 3;

/// How many broken copies of a file are tried; a sanitizer's run can ask for more.
uint32_t random_rounds() {
  const char* const asked = std::getenv("VITRAIL_HOSTILE_ROUNDS");
  return asked != nullptr ? static_cast<uint32_t>(std::atoi(asked)) : 40;
}

std::string read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_all(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// A copy of a seed's folder that goes away.
class Copy {
 public:
  explicit Copy(const Seed& seed) : seed_(seed) {
    // In memory where the system has such a folder: thousands of small files are written.
    const fs::path memory = "/dev/shm";
    std::error_code unknown;
    const bool has_memory = fs::is_directory(memory, unknown);
    std::string name =
        ((has_memory ? memory : fs::temp_directory_path()) / "vitrail_hostile_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + name);
    folder_ = fs::path(name) / fs::path(seed.folder).filename();
    fs::copy(fs::path(VITRAIL_CORPUS) / seed.folder, folder_, fs::copy_options::recursive);
    // Only what the source means, so that the size of the files is that of what is read.
    if (!seed.root.empty() && fs::is_regular_file(folder_ / seed.root) && seed.reader == "images")
      for (const auto& entry : fs::directory_iterator(folder_))
        if (entry.path().filename() != seed.root) fs::remove_all(entry.path());
    good_ = read_all(victim());
  }
  ~Copy() {
    std::error_code ignored;
    fs::remove_all(folder_.parent_path(), ignored);
  }

  fs::path victim() const { return folder_ / seed_.victim; }
  const std::string& good() const { return good_; }

  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_))
      if (entry.is_regular_file()) sum += static_cast<int64_t>(entry.file_size());
    return sum;
  }

  config::Source source() const {
    config::Source source;
    source.reader.value = seed_.reader;
    source.root = (seed_.root.empty() ? folder_ : folder_ / seed_.root).string();
    if (seed_.adjust) seed_.adjust(source, folder_.string());
    return source;
  }

  config::Model model() const {
    config::Model model;
    model.kind.value = "mae";  // needs no labels
    model.image_size = seed_.sides;
    model.in_channels = seed_.channels;
    model.num_classes = 10;
    return model;
  }

 private:
  const Seed& seed_;
  fs::path folder_;
  std::string good_;
};

/// All that a run asks of a reader.
void use(const config::Source& source, const config::Model& model) {
  const std::unique_ptr<data::Reader> reader = data::open_reader(source, model);
  for (int64_t i = 0; i < std::min(reader->size(), kMaxSamples); ++i) {
    (void)reader->describe(i);
    const data::Shape shape = reader->shape(i);
    (void)reader->boxes(i);
    (void)reader->chunk_sides(i);
    const data::Pixels pixels = reader->decode(i);
    const size_t values = pixels.is_float() ? pixels.floats.size() : pixels.values.size();
    EXPECT_EQ(values, static_cast<size_t>(data::count(pixels.sides) * pixels.channels));
    EXPECT_EQ(pixels.sides, shape.sides);
    if (!reader->reads_boxes()) continue;
    data::Box box{pixels.sides, pixels.sides};
    for (size_t axis = 0; axis < box.sides.size(); ++axis) {
      box.origin[axis] = pixels.sides[axis] / 3;
      box.sides[axis] = std::max<int64_t>(1, pixels.sides[axis] / 2);
    }
    EXPECT_EQ(reader->decode_box(i, box).sides, box.sides);
  }
}

struct Tally {
  int read = 0, refused = 0;
  int64_t worst_peak = 0;
};

class Hostile : public ::testing::TestWithParam<Seed> {
 protected:
  static void SetUpTestSuite() {
    core::set_log_rank(1);           // no lines about every file
    data::set_chunk_cache_bytes(0);  // chunks are read from their files, not from memory
  }

  void attempt(const Copy& copy, const Broken& broken) {
    write_all(copy.victim(), broken.bytes);
    const MemoryLimit& limit = limit_of(GetParam().format);
    const int64_t bytes = copy.bytes();
    const config::Source source = copy.source();
    const config::Model model = copy.model();
    start_meter();
    try {
      use(source, model);
      ++tally_.read;
    } catch (const core::DataError& error) {
      ++tally_.refused;
      check_message(error.what(), copy, broken);
    } catch (const std::exception& error) {
      ADD_FAILURE() << broken.how << ": another kind of exception: " << error.what();
    }
    const int64_t peak = peak_bytes();
    EXPECT_LE(peak, limit.fixed + limit.factor * bytes) << broken.how << ": " << bytes << " bytes";
    tally_.worst_peak = std::max(tally_.worst_peak, peak);
  }

  static void check_message(const std::string& message, const Copy& copy, const Broken& broken) {
    // The file, or the folder that is one array, or the file that points at it.
    const fs::path victim = copy.victim();
    const bool names =
        message.find(victim.filename().string()) != std::string::npos ||
        message.find(victim.parent_path().filename().string()) != std::string::npos ||
        message.find(fs::path(copy.source().root).filename().string()) != std::string::npos;
    EXPECT_TRUE(names) << broken.how << ": does not name the file: " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 2000u) << message;
  }

  Tally tally_;
};

TEST_P(Hostile, IsReadOrRefusedByName) {
  const Seed& seed = GetParam();
  const Copy copy(seed);
  use(copy.source(), copy.model());  // good as it is
  std::vector<Broken> all;
  add_cut_off(copy.good(), all);
  if (seed.is_text)
    add_lying_text(copy.good(), all);
  else
    add_lies(copy.good(), seed.header, all);
  add_random(copy.good(), random_rounds(), all);
  for (const Broken& broken : all) {
    attempt(copy, broken);
    if (HasFailure()) break;  // one example says enough
  }
  std::printf("%-10s %-24s %4zu broken files: %4d refused, %4d read, at most %.1f MiB\n",
              seed.format.c_str(), seed.victim.c_str(), all.size(), tally_.refused, tally_.read,
              static_cast<double>(tally_.worst_peak) / (1 << 20));
  EXPECT_GE(tally_.refused, 10);
}

std::string name_of(const ::testing::TestParamInfo<Seed>& info) {
  std::string name = info.param.format + "_" + info.param.folder + "_" + info.param.victim;
  for (char& letter : name)
    if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Corpus, Hostile, ::testing::ValuesIn(seeds()), name_of);

TEST(HostileCorpus, HoldsEveryFormat) {
  std::set<std::string> formats;
  for (const Seed& seed : seeds()) formats.insert(seed.reader);
  for (const char* reader : {"image_list", "images", "cifar", "idx", "nifti", "npy", "raw", "tiff",
                             "zarr", "n5", "coco", "voc", "tar", "digits"})
    EXPECT_TRUE(formats.contains(reader)) << reader;
}

}  // namespace
}  // namespace vitrail::testing
