#pragma once
/// Fields of a NIfTI header at their offsets, in the file's byte order.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>

namespace vitrail::io {

static_assert(std::endian::native == std::endian::little);

inline constexpr size_t kNifti1Bytes = 348, kNifti2Bytes = 540;

template <class T>
T load_value(const std::byte* from, bool is_swapped) {
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), from, sizeof(T));
  if (is_swapped) std::reverse(bytes.begin(), bytes.end());
  return std::bit_cast<T>(bytes);
}

/// The first `bytes` bytes of a file that may be gzipped, fewer if it is shorter.
/// Memory   at most `bytes`, and at most 1032 times the file (deflate's best).
/// throws   DataError naming the file: broken gzip.
std::string unpack_prefix(std::span<const std::byte> file, size_t bytes, const std::string& name);

bool is_gzip(std::span<const std::byte> file);

/// A whole .gz file.
std::string pack_gzip(const std::string& bytes);

}  // namespace vitrail::io
