#pragma once
/// manifest.json: what a checkpoint holds and where. The page is docs/formats/checkpoint.md.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"
#include "vitrail/parallel/placement.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

constexpr int kCheckpointFormat = 2;  // 1 is read too
constexpr int64_t kMaxManifestBytes = 256ll << 20;
/// Regions longer than this have a checksum for each block of this length, so that a part can be read and checked.
constexpr int64_t kBlockBytes = 1 << 20;

/// Elements [start, start + count) of a box of a tensor in row-major order, and the bytes that hold them.
struct Region {
  std::string file;
  int64_t offset = 0;  // from the start of the file
  int64_t bytes = 0;
  int32_t box = 0;  // of the tensor's boxes
  int64_t start = 0;
  int64_t count = 0;
  std::vector<uint32_t> crc32c;  // of each block; a single one covers all of the region
  int64_t block_bytes() const { return crc32c.size() == 1 ? bytes : kBlockBytes; }
};

struct TensorEntry {
  core::DType dtype = core::DType::f32;
  std::vector<int64_t> shape;
  std::vector<parallel::Box> boxes;  // disjoint; together the whole tensor
  std::vector<Region> regions;       // by box, then start; together all of every box
  int64_t count() const;
};

struct FileEntry {
  int64_t bytes = 0;
  int64_t header_bytes = 0;  // everything before the first tensor
  uint32_t header_crc32c = 0;
};

struct Manifest {
  CheckpointInfo info;
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, FileEntry> files;
};

/// Checksums of a region's blocks.
std::vector<uint32_t> block_checksums(const void* data, int64_t bytes);

/// Adds a region; the tensor and the box are added at their first region. throws CheckpointError when a tensor comes with
/// another dtype or shape.
void add_region(Manifest& manifest, const std::string& tensor, core::DType dtype,
                const std::vector<int64_t>& shape, const parallel::Box& box, Region region);
/// Puts the regions that were added in order.
void sort_regions(Manifest& manifest);

/// JSON whose last line holds the checksum of everything before it.
/// throws   CheckpointError when it would be too long to be read.
std::string to_text(const Manifest& manifest);
/// Trusts nothing: throws CheckpointError unless every tensor is covered once, every byte of every
/// file belongs to one region or header, names are plain file names, and sizes are free of
/// overflow. `where` is named in messages.
Manifest parse_manifest(const std::string& text, const std::string& where);
/// The rules of parse_manifest that span entries, also used before a manifest is written.
void check_manifest(const Manifest& manifest, const std::string& where);

/// "f32" <-> DType; throws CheckpointError for an unknown name.
core::DType dtype_named(const std::string& text, const std::string& where);
/// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace vitrail::train
