#pragma once
/// manifest.json: what a checkpoint holds and where. The page is docs/formats/checkpoint.md.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

constexpr int kCheckpointFormat = 1;
constexpr int64_t kMaxManifestBytes = 256ll << 20;

/// Elements [start, start + count) of a tensor in row-major order, and the bytes that hold them.
struct Region {
  std::string file;
  int64_t offset = 0;  // from the start of the file
  int64_t bytes = 0;
  int64_t start = 0;
  int64_t count = 0;
  uint32_t crc32c = 0;
};

struct TensorEntry {
  core::DType dtype = core::DType::f32;
  std::vector<int64_t> shape;
  std::vector<Region> regions;  // by start; together the whole tensor
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

/// JSON whose last line holds the checksum of everything before it.
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
