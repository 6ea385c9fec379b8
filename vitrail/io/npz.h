#pragma once
/// NumPy's .npz: a ZIP archive of .npy files.
///
/// Format   ZIP with its 64-bit extension; members stored (read from the map, box by box) or
///          deflated (unpacked whole into memory when the member is opened, their sum checked).
///          Refused: encrypted members, other methods, archives in several parts.
/// Memory   a deflated member at most 1032 times its packed bytes (deflate's best) and at most
///          NpzLimits::max_member_bytes.
/// Errors   DataError naming the file.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vitrail/io/array.h"

namespace vitrail::io {

struct NpzLimits {
  int64_t max_member_bytes = int64_t{1} << 34;
};

/// A member of the archive.
struct NpzMember {
  std::string name;  // without .npy
  uint16_t method = 0;
  uint32_t crc32 = 0;
  int64_t packed_bytes = 0, bytes = 0;
  int64_t header_offset = 0;
};

/// The .npy members in the archive's order.
std::vector<NpzMember> list_npz(std::span<const std::byte> file, const std::string& name);

/// The member `array`, with or without its .npy; empty = the only one.
/// throws   DataError naming the file and its members when there is none or more than one.
std::unique_ptr<ArrayFile> open_npz(const std::string& path, const std::string& array,
                                    const NpzLimits& limits = {});
/// The same for a file in memory, which `owner` keeps (null: the caller does).
std::unique_ptr<ArrayFile> parse_npz(std::span<const std::byte> file,
                                     std::shared_ptr<const void> owner, const std::string& name,
                                     const std::string& array, const NpzLimits& limits = {});

}  // namespace vitrail::io
