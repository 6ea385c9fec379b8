#pragma once
/// Reading parts of regions: only the blocks that are needed, every one of them checked.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_manifest.h"

namespace vitrail::train {

/// Bytes [first, first + count) of a region, and where they go.
struct RegionRun {
  int64_t first = 0;
  int64_t count = 0;
  char* out = nullptr;
};

/// Reads one checkpoint's files; for one thread.
/// Errors   CheckpointError naming file and tensor.
class RegionReader {
 public:
  explicit RegionReader(std::string folder) : folder_(std::move(folder)) {}

  /// `runs` by rising `first`, disjoint.
  void read(const Region& region, const std::string& tensor, const std::vector<RegionRun>& runs);
  /// Compares checksum `block` of the region.
  void verify_block(const Region& region, const std::string& tensor, int64_t block);
  void verify_header(const std::string& file, const FileEntry& entry);
  int64_t bytes_read() const { return bytes_read_; }

 private:
  const InputFile& open(const std::string& file);
  std::string path_of(const std::string& file) const;
  void read_block(const Region& region, const std::string& tensor, int64_t block,
                  const RegionRun*& run, const RegionRun* end);
  uint32_t read_chunk(const InputFile& file, int64_t offset, char* out, int64_t bytes,
                      uint32_t crc);

  std::string folder_;
  std::map<std::string, std::unique_ptr<InputFile>> files_;
  std::vector<char> scratch_;
  int64_t bytes_read_ = 0;
};

}  // namespace vitrail::train
