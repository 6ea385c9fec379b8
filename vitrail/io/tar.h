#pragma once
/// Tar archives as lists of what is in them.
///
/// Format   ustar, and before it v7; GNU long names and numbers; pax headers (path and size). Only
///          plain files are listed; folders, links and devices are passed over. Refused: sparse
///          files, compressed archives, archives without a block of zeros at their end (they were
///          cut off).
/// Errors   DataError naming the archive and where in it.
/// Memory   that of the longest name; only headers are touched.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace vitrail::io {

struct TarMember {
  std::string name;              // as stored, at most 64 KiB
  int64_t offset = 0, size = 0;  // of its bytes; they lie inside the archive
};

/// Calls `take` for every plain file in order.
void list_tar(std::span<const std::byte> file, const std::string& name,
              const std::function<void(const TarMember&)>& take);

}  // namespace vitrail::io
