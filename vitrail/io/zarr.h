#pragma once
/// zarr arrays of version 2 and 3 in folders, sharded ones too; only what a box touches is read.
///
/// Format   docs/formats/zarr.md: what is read, what is refused, and the limits.
/// Errors   DataError naming the file.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/io/array.h"
#include "vitrail/io/chunk_cache.h"
#include "vitrail/io/zarr_container.h"

namespace vitrail::io {

/// Opens the array at `array` inside the container `path`. When that is a group (or `array` is
/// empty and `path` is one): its only array, dataset 0 of its OME-NGFF multiscales, or s0 of s0,
/// s1, ...; DataError lists the arrays when none of these tells which is meant.
/// `cache`  may be shared by all arrays of a process; null keeps no decoded chunks.
/// Time     reading runs in the caller's thread; several threads may read at once.
/// Memory   a chunk is at most 2 GiB decoded, and at most 50,000 times its stored size.
std::unique_ptr<ArrayFile> open_zarr(const std::string& path, const std::string& array,
                                     std::shared_ptr<ChunkCache> cache);

/// All arrays below `path`, in natural order.
std::vector<ArrayEntry> list_zarr(const std::string& path);

/// Whether the folder is a zarr array or group, or is called *.zarr.
bool is_zarr(const std::string& path);

}  // namespace vitrail::io
