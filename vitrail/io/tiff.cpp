#include "vitrail/io/tiff.h"

#include <algorithm>
#include <cctype>

#include "vitrail/core/mapped_file.h"

namespace vitrail::io {

bool has_tiff_extension(const std::string& path) {
  std::string lower = path;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return lower.ends_with(".tif") || lower.ends_with(".tiff");
}

bool is_tiff(std::span<const std::byte> file) {
  if (file.size() < 4) return false;
  const auto at = [&](size_t i) { return std::to_integer<unsigned char>(file[i]); };
  const bool is_little = at(0) == 'I' && at(1) == 'I' && at(3) == 0;
  const bool is_big = at(0) == 'M' && at(1) == 'M' && at(2) == 0;
  const unsigned char version = is_little ? at(2) : at(3);
  return (is_little || is_big) && (version == 42 || version == 43);  // classic, BigTIFF
}

std::unique_ptr<ArrayFile> open_tiff(const std::string& path) {
  auto map = std::make_shared<const core::MappedFile>(path);
  const std::span<const std::byte> bytes = map->bytes();
  return parse_tiff(bytes, std::move(map), path);
}

}  // namespace vitrail::io
