#pragma once
/// N5 arrays in folders; shapes are in row-major order, the reverse of the file's.
///
/// Format   github.com/saalfeldlab/n5; docs/formats/zarr.md: what is read and refused.
/// Errors   DataError naming the file.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/io/array.h"
#include "vitrail/io/chunk_cache.h"
#include "vitrail/io/zarr_container.h"
#include "vitrail/io/zarr_metadata.h"

namespace vitrail::io {

/// As open_zarr.
std::unique_ptr<ArrayFile> open_n5(const std::string& path, const std::string& array,
                                   std::shared_ptr<ChunkCache> cache);

/// All arrays below `path`, in natural order.
std::vector<ArrayEntry> list_n5(const std::string& path);

/// Whether the folder is an N5 array or group with attributes, or is called *.n5.
bool is_n5(const std::string& path);

/// An array's attributes.json; `name` is for messages.
ZarrMeta parse_n5(std::string_view attributes, const std::string& name);

}  // namespace vitrail::io
