#pragma once
/// TIFF images and stacks, through libtiff where the build has it.
///
/// Format   classic and BigTIFF, both byte orders; strips and tiles; integers of 8 to 64 bits and
///          floats of 16 to 64 bits; every compression that the libtiff at hand knows. Values are as
///          stored: palettes are not looked up, white-is-zero is not turned. JPEG in YCbCr becomes
///          RGB. Refused: 1-, 2-, 4-, 12-bit and complex values, pages of different sides or types.
/// Axes     pages, rows, columns, samples: "zyxc", without those that the file lacks or that are
///          one long; planes of samples that lie apart are "zcyx". ImageJ hyperstacks and OME-TIFF
///          with all pages in one file name t, z and c of their pages. Pages that are marked as
///          smaller copies are left out.
/// Memory   the file is mapped and only the strips or tiles of a box are unpacked, one at a time. A
///          strip or tile, and the whole array, must unpack to at most 256 MiB + 2048 times the
///          file's bytes.
/// Errors   DataError naming the file, with libtiff's words.

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "vitrail/io/array.h"

namespace vitrail::io {

/// .tif or .tiff in capitals or not.
bool has_tiff_extension(const std::string& path);

/// By its first bytes.
bool is_tiff(std::span<const std::byte> file);

/// throws   ConfigError when this build has no libtiff.
std::unique_ptr<ArrayFile> open_tiff(const std::string& path);
/// The same for a file in memory, which `owner` keeps (null: the caller does).
std::unique_ptr<ArrayFile> parse_tiff(std::span<const std::byte> file,
                                      std::shared_ptr<const void> owner, const std::string& name);

}  // namespace vitrail::io
