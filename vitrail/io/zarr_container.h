#pragma once
/// Folders that hold arrays and groups of arrays: finding the array that is meant.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/io/array.h"
#include "vitrail/io/chunk_cache.h"
#include "vitrail/io/zarr_metadata.h"

namespace vitrail::io {

/// One array of a container, as its metadata describes it.
struct ArrayEntry {
  std::string name;  // path inside the container; "" = the container is the array
  std::vector<int64_t> shape, chunk_shape;
  core::DType dtype = core::DType::u8;
  std::string axes;   // as ArrayFile::axes
  std::string error;  // why it cannot be read; "" = it can
};

/// What OME-NGFF says of a group: the scales of one image, the largest first.
struct Multiscales {
  std::vector<std::string> paths;  // inside the group
  std::string axes;                // "" = not said, or in other words than t, c, z, y, x
};

/// How a format describes folders. All throw DataError for a file that cannot be read.
struct ContainerFormat {
  const char* name;
  std::vector<const char*> metadata_files;
  /// Nothing if the folder is no array.
  std::optional<ZarrMeta> (*read_array)(const std::string& folder);
  std::optional<Multiscales> (*read_multiscales)(const std::string& folder);
};

/// Arrays below `path`; at most 10,000 folders are visited, 16 deep.
std::vector<ArrayEntry> list_arrays(const ContainerFormat& format, const std::string& path);

std::unique_ptr<ArrayFile> open_array(const ContainerFormat& format, const std::string& path,
                                      const std::string& array, std::shared_ptr<ChunkCache> cache);

}  // namespace vitrail::io
