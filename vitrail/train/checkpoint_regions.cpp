#include "vitrail/train/checkpoint_regions.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"

namespace vitrail::train {

namespace {

/// Longer than a block: only regions with one checksum (format 1) are read in several chunks.
constexpr int64_t kChunkBytes = 4 << 20;
/// A checkpoint of thousands of ranks has more files than a process may open.
constexpr size_t kOpenFiles = 64;

void check_crc(uint32_t expected, uint32_t got, const std::string& file, const std::string& what) {
  VT_REQUIRE(CheckpointError, expected == got,
             "[checkpoint] {}: {} must have checksum {:08x} but got {:08x}: the file is damaged",
             file, what, expected, got);
}

}  // namespace

std::string RegionReader::path_of(const std::string& file) const {
  return (std::filesystem::path(folder_) / file).string();
}

const InputFile& RegionReader::open(const std::string& file) {
  const auto found = files_.find(file);
  if (found != files_.end()) return *found->second;
  if (files_.size() >= kOpenFiles) files_.clear();
  return *files_.emplace(file, std::make_unique<InputFile>(path_of(file))).first->second;
}

uint32_t RegionReader::read_chunk(const InputFile& file, int64_t offset, char* out, int64_t bytes,
                                  uint32_t crc) {
  file.read(offset, out, bytes);
  bytes_read_ += bytes;
  return core::crc32c(out, static_cast<size_t>(bytes), crc);
}

/// `run` is the first that ends behind the block's start; moves on past those that end in the block.
void RegionReader::read_block(const Region& region, const std::string& tensor, int64_t block,
                              const RegionRun*& run, const RegionRun* end) {
  const InputFile& file = open(region.file);
  const int64_t block_begin = block * region.block_bytes();
  const int64_t block_end = std::min(region.bytes, block_begin + region.block_bytes());
  uint32_t crc = 0;
  for (int64_t begin = block_begin; begin < block_end; begin += kChunkBytes) {
    const int64_t bytes = std::min(kChunkBytes, block_end - begin);
    if (run != end && run->first <= begin && run->first + run->count >= begin + bytes) {
      // All of it goes to one place.
      crc = read_chunk(file, region.offset + begin, run->out + (begin - run->first), bytes, crc);
    } else {
      scratch_.resize(
          static_cast<size_t>(std::max<int64_t>(static_cast<int64_t>(scratch_.size()), bytes)));
      crc = read_chunk(file, region.offset + begin, scratch_.data(), bytes, crc);
      for (const RegionRun* one = run; one != end && one->first < begin + bytes; ++one) {
        const int64_t low = std::max(begin, one->first);
        const int64_t high = std::min(begin + bytes, one->first + one->count);
        if (low < high)
          std::memcpy(one->out + (low - one->first), scratch_.data() + (low - begin),
                      static_cast<size_t>(high - low));
      }
    }
    while (run != end && run->first + run->count <= begin + bytes) ++run;
  }
  check_crc(region.crc32c[static_cast<size_t>(block)], crc, path_of(region.file),
            "tensor " + tensor);
}

void RegionReader::read(const Region& region, const std::string& tensor,
                        const std::vector<RegionRun>& runs) {
  const RegionRun* run = runs.data();
  const RegionRun* const end = run + runs.size();
  int64_t next = 0;  // first block not read yet
  while (run != end) {
    const int64_t block = std::max(next, run->first / region.block_bytes());
    read_block(region, tensor, block, run, end);
    next = block + 1;
  }
}

void RegionReader::verify_block(const Region& region, const std::string& tensor, int64_t block) {
  const RegionRun* none = nullptr;
  read_block(region, tensor, block, none, nullptr);
}

void RegionReader::verify_header(const std::string& file, const FileEntry& entry) {
  const InputFile& opened = open(file);
  uint32_t crc = 0;
  for (int64_t begin = 0; begin < entry.header_bytes; begin += kChunkBytes) {
    const int64_t bytes = std::min(kChunkBytes, entry.header_bytes - begin);
    scratch_.resize(
        static_cast<size_t>(std::max<int64_t>(static_cast<int64_t>(scratch_.size()), bytes)));
    crc = read_chunk(opened, begin, scratch_.data(), bytes, crc);
  }
  check_crc(entry.header_crc32c, crc, path_of(file), "the header");
}

}  // namespace vitrail::train
