#pragma once
/// Arrays as zarr v3 stores in a folder.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"

namespace vitrail::io {

/// Writes a row-major array as a zarr v3 array (regular chunks of at most 128 along each axis, codecs
/// bytes and gzip) with `axes` as dimension names, one letter an axis. The folder appears whole.
/// throws   Error: the folder exists, bf16 values, a disk that is full.
void write_zarr(const std::string& path, core::DType dtype, std::span<const int64_t> shape,
                const std::string& axes, const void* values);

}  // namespace vitrail::io
