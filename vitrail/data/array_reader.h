#pragma once
/// Images and volumes out of arrays: which axis is what, which channels, which labels.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/io/array.h"
#include "vitrail/io/chunk_cache.h"

namespace vitrail::data {

/// Opens one file or container of a format: npy (and .npz), raw, tiff, zarr, n5.
/// `array` names an array inside a container; `source` gives raw its shape, dtype and offset.
/// throws   DataError naming the path; ConfigError when this build lacks the format.
std::unique_ptr<io::ArrayFile> open_array_file(const std::string& format, const std::string& path,
                                               const std::string& array,
                                               const config::Source& source);

/// `path` is a folder that is a container of the format (zarr, n5).
bool is_array_container(const std::string& format, const std::string& path);

/// The files (containers) of a format that `root` means, in natural order.
std::vector<std::string> list_array_files(const std::string& format, const std::string& root);

/// Keeps decoded chunks of zarr and N5 for all readers that are opened from now on; 512 MiB before
/// it is called. Threads  any.
void set_chunk_cache_bytes(int64_t max_bytes);
std::shared_ptr<io::ChunkCache> chunk_cache();

}  // namespace vitrail::data
