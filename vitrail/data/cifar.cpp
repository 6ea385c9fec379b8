#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSide = 32, kPlane = kSide * kSide, kChannels = 3;

/// A record is its label bytes and three planes of pixels; the last label byte is the class.
struct Version {
  int64_t label_bytes = 1, classes = 10;
  const char* name = "CIFAR-10";
  const char* names_file = "batches.meta.txt";

  int64_t record_bytes() const { return label_bytes + kChannels * kPlane; }
};

constexpr Version kCifar10{1, 10, "CIFAR-10", "batches.meta.txt"};
constexpr Version kCifar100{2, 100, "CIFAR-100", "fine_label_names.txt"};

bool is_bin(const std::string& path) { return fs::path(path).extension() == ".bin"; }

/// The training files of a folder; any file or glob as named.
std::vector<std::string> list_records(const std::string& root) {
  std::error_code unknown;
  if (!fs::is_directory(root, unknown)) return list_files(root, is_bin, ".bin");
  std::vector<std::string> files = list_folder(root, [](const std::string& path) {
    const std::string name = fs::path(path).filename().string();
    return is_bin(path) && (name.starts_with("data_batch_") || name == "train.bin");
  });
  VT_REQUIRE(
      DataError, !files.empty(),
      "[data] {}: expected data_batch_*.bin (CIFAR-10) or train.bin (CIFAR-100) in the folder "
      "but found neither; name a file as root",
      root);
  return files;
}

/// By the usual names, else by the length of a record.
const Version& version_of(const std::string& path, int64_t bytes) {
  const std::string name = fs::path(path).filename().string();
  if (name.find("_batch") != std::string::npos) return kCifar10;
  if (name == "train.bin" || name == "test.bin") return kCifar100;
  const bool fits_10 = bytes % kCifar10.record_bytes() == 0;
  const bool fits_100 = bytes % kCifar100.record_bytes() == 0;
  VT_REQUIRE(DataError, fits_10 != fits_100,
             "[data] {}: must be records of {} (CIFAR-10) or {} bytes (CIFAR-100) but its {} bytes "
             "are {}; name it data_batch_1.bin or train.bin",
             path, kCifar10.record_bytes(), kCifar100.record_bytes(), bytes,
             fits_10 ? "both" : "neither");
  return fits_10 ? kCifar10 : kCifar100;
}

/// One name a line, as many as there are classes; none without the file.
std::vector<std::string> read_names(const std::string& folder, const Version& version) {
  const std::string path = (fs::path(folder) / version.names_file).string();
  std::error_code unknown;
  if (!fs::exists(path, unknown)) return {};
  constexpr int64_t kMaxBytes = 1 << 20;
  const std::string text = core::read_file(path, kMaxBytes);
  std::vector<std::string> names;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (!line.empty()) names.emplace_back(line);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  VT_REQUIRE(DataError, static_cast<int64_t>(names.size()) == version.classes,
             "[data] {}: must name the {} classes of {} but names {}", path, version.classes,
             version.name, names.size());
  return names;
}

class Cifar : public Reader {
 public:
  Cifar(const config::Source& source, const config::Model& model) : Reader(model.in_channels) {
    for (const std::string& path : list_records(source.root)) add(path);
    names_ = read_names(fs::path(files_.front().path()).parent_path().string(), version_);
    for (int64_t i = 0; i < size(); ++i) {
      const int64_t label = label_of(i);
      if (label >= version_.classes) refuse_label(i, label);
      check_label(label, model, describe_path(i));
    }
  }

  int64_t size() const override { return starts_.back(); }
  SampleInfo describe(int64_t i) const override { return {describe_path(i), label_of(i)}; }
  Shape shape(int64_t) const override { return {{kSide, kSide}, kChannels}; }
  std::vector<std::string> class_names() const override { return names_; }

  Pixels decode(int64_t i) const override {
    const std::byte* planes = record(i) + version_.label_bytes;
    Pixels pixels;
    pixels.sides = {kSide, kSide};
    pixels.channels = kChannels;
    pixels.values.resize(static_cast<size_t>(kPlane * kChannels));
    for (int64_t p = 0; p < kPlane; ++p)
      for (int64_t c = 0; c < kChannels; ++c)
        pixels.values[static_cast<size_t>(p * kChannels + c)] =
            std::to_integer<uint8_t>(planes[c * kPlane + p]);
    return pixels;
  }

 private:
  void add(const std::string& path) {
    core::MappedFile file(path);
    const auto bytes = static_cast<int64_t>(file.bytes().size());
    const Version& version = version_of(path, bytes);
    if (files_.empty()) version_ = version;
    VT_REQUIRE(DataError, version.classes == version_.classes,
               "[data] {}: must be {} as the files before it but is {}", path, version_.name,
               version.name);
    VT_REQUIRE(DataError, bytes > 0 && bytes % version.record_bytes() == 0,
               "[data] {}: must be whole records of {} bytes ({}) but has {} bytes", path,
               version.record_bytes(), version.name, bytes);
    starts_.push_back(starts_.back() + bytes / version.record_bytes());
    files_.push_back(std::move(file));
  }

  [[noreturn]] void refuse_label(int64_t i, int64_t label) const {
    core::fail<core::DataError>("[data] {}: a class of {} must be below {} but is {}",
                                describe_path(i), version_.name, version_.classes, label);
  }

  size_t file_of(int64_t i) const {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), i);
    return static_cast<size_t>(after - starts_.begin() - 1);
  }
  const std::byte* record(int64_t i) const {
    const size_t file = file_of(i);
    return files_.at(file).bytes().data() + (i - starts_[file]) * version_.record_bytes();
  }
  int64_t label_of(int64_t i) const {
    return std::to_integer<int64_t>(record(i)[version_.label_bytes - 1]);
  }
  std::string describe_path(int64_t i) const {
    const size_t file = file_of(i);
    return fmt::format("{}#{}", files_.at(file).path(), i - starts_[file]);
  }

  Version version_;
  std::vector<core::MappedFile> files_;
  std::vector<int64_t> starts_{0};  // the first record of each file, and the end
  std::vector<std::string> names_;
};

}  // namespace

std::unique_ptr<Reader> open_cifar(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  return std::make_unique<Cifar>(source, model);
}

}  // namespace vitrail::data
