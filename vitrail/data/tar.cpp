#include <algorithm>
#include <filesystem>
#include <optional>

#include <sys/mman.h>
#include <unistd.h>

#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/core/thread_pool.h"
#include "vitrail/data/files.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/readers.h"
#include "vitrail/data/tar_index.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

bool is_tar(const std::string& path) { return std::filesystem::path(path).extension() == ".tar"; }

struct Shard {
  core::MappedFile file;
  TarIndex index;
  int64_t first = 0;  // place of its first sample in the list over all shards
};

/// Tells the system how the bytes are going to be read; nothing depends on its listening.
void advise(std::span<const std::byte> bytes, int advice) {
  if (bytes.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t start = address / page * page;
  ::madvise(reinterpret_cast<void*>(start), address + bytes.size() - start, advice);
}

Shard open_shard(const std::string& path) {
  Shard shard{core::MappedFile(path), {}, 0};
  // Headers lie far apart: reading ahead would bring the whole file.
  advise(shard.file.bytes(), MADV_RANDOM);
  shard.index = index_tar(shard.file.bytes(), path);
  advise(shard.file.bytes(), MADV_NORMAL);
  return shard;
}

/// Several at a time, since a header far away is mostly waited for.
std::vector<Shard> open_shards(const std::vector<std::string>& paths) {
  std::vector<std::optional<Shard>> opened(paths.size());
  const auto n = static_cast<int64_t>(paths.size());
  constexpr int64_t kMostThreads = 8;
  core::parallel_for(static_cast<int>(std::min(n, kMostThreads)), 0, n, 1,
                     [&](int64_t first, int64_t last) {
                       for (int64_t i = first; i < last; ++i)
                         opened[static_cast<size_t>(i)] = open_shard(paths[static_cast<size_t>(i)]);
                     });
  std::vector<Shard> shards;
  for (std::optional<Shard>& shard : opened) shards.push_back(std::move(*shard));
  return shards;
}

class Tar : public Reader {
 public:
  Tar(const config::Source& source, const config::Model& model)
      : Reader(model.in_channels),
        shards_(open_shards(list_files(source.root, is_tar, ".tar"))),
        classes_(source, model) {
    int64_t without_image = 0;
    for (Shard& shard : shards_) {
      shard.first = size_;
      size_ += static_cast<int64_t>(shard.index.samples.size());
      without_image += shard.index.without_image;
      for (const TarSample& sample : shard.index.samples)
        check(sample, path_of(shard, sample), model);
    }
    if (without_image > 0)
      core::log_info("[data] {}: left out {} keys without an image", source.root, without_image);
  }

  int64_t size() const override { return size_; }
  bool has_masks() const override { return has_masks_; }

  SampleInfo describe(int64_t i) const override {
    const auto [shard, sample] = find(i);
    return {path_of(shard, sample), sample.label};
  }

  Pixels decode(int64_t i) const override {
    const auto [shard, sample] = find(i);
    return decode_image_pixels(wanted(shard, sample.image), path_of(shard, sample));
  }

  Shape shape(int64_t i) const override {
    const auto [shard, sample] = find(i);
    const io::ImageSize size =
        io::image_size(bytes_of(shard, sample.image), path_of(shard, sample));
    return {{size.height, size.width}, size.channels, ""};
  }

  Mask decode_mask(int64_t i) const override {
    const auto [shard, sample] = find(i);
    const std::string path = path_of(shard, sample);
    const std::string name = path + " (mask)";
    const Mask values = decode_image_mask(wanted(shard, sample.mask), name);
    Mask mask = classes_.apply(values, name);
    check_mask_sides(mask.sides, name, shape(i).sides, path);
    return mask;
  }

 private:
  struct Found {
    const Shard& shard;
    const TarSample& sample;
  };

  void check(const TarSample& sample, const std::string& path, const config::Model& model) {
    VT_REQUIRE(DataError, sample.label >= 0 || !classifies(model),
               "[data] {}: a classifier needs a class but no cls, json or txt member holds one",
               path);
    VT_REQUIRE(DataError, sample.mask.size > 0 || !segments(model),
               "[data] {}: the model learns from masks but there is no mask.png or seg.png member",
               path);
    if (sample.label >= 0) check_label(sample.label, model, path);
    if (sample.mask.size == 0) has_masks_ = false;
  }

  static std::string path_of(const Shard& shard, const TarSample& sample) {
    return fmt::format("{}#{}", shard.file.path(), sample.key);
  }

  static std::span<const std::byte> bytes_of(const Shard& shard, const TarSpan& span) {
    return shard.file.bytes().subspan(static_cast<size_t>(span.offset),
                                      static_cast<size_t>(span.size));
  }

  /// The same, to be read at once.
  static std::span<const std::byte> wanted(const Shard& shard, const TarSpan& span) {
    const std::span<const std::byte> bytes = bytes_of(shard, span);
    constexpr size_t kReadAhead = 128 << 10;  // what the system reads at a time by itself
    if (bytes.size() > kReadAhead) advise(bytes, MADV_WILLNEED);  // one request, not many
    return bytes;
  }

  Found find(int64_t i) const {
    const auto after =
        std::upper_bound(shards_.begin(), shards_.end(), i,
                         [](int64_t place, const Shard& shard) { return place < shard.first; });
    const Shard& shard = *std::prev(after);
    return {shard, shard.index.samples.at(static_cast<size_t>(i - shard.first))};
  }

  std::vector<Shard> shards_;
  MaskClasses classes_;
  int64_t size_ = 0;
  bool has_masks_ = true;  // until a sample lacks one
};

}  // namespace

std::unique_ptr<Reader> open_tar(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  return std::make_unique<Tar>(source, model);
}

}  // namespace vitrail::data
