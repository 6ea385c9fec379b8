// Which files and containers there are of each format of arrays, and how each is opened.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/array_reader.h"
#include "vitrail/data/files.h"
#include "vitrail/io/n5.h"
#include "vitrail/io/npy.h"
#include "vitrail/io/npz.h"
#include "vitrail/io/raw.h"
#include "vitrail/io/tiff.h"
#include "vitrail/io/zarr.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

bool has_extension(const std::string& path, std::initializer_list<std::string_view> extensions) {
  std::string extension = fs::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

bool is_glob(const std::string& root) {
  std::error_code unknown;
  return !fs::exists(root, unknown);
}

std::vector<std::string> list_plain(const std::string& format, const std::string& root) {
  if (format == "npy")
    return list_files(
        root,
        [](const std::string& path) {
          return has_extension(path, {".npy", ".npz"});
        },
        ".npy or .npz");
  if (format == "tiff") return list_files(root, io::has_tiff_extension, ".tif or .tiff");
  return list_files(
      root,
      [any = is_glob(root)](const std::string& path) {
        return any || has_extension(path, {".raw", ".bin", ".dat"});
      },
      ".raw, .bin or .dat");
}

constexpr int kMaxDepth = 16;  // links may form a loop

/// Containers at or below a folder, without looking into them.
void add_containers(const std::string& format, const std::string& folder, int depth,
                    std::vector<std::string>& found) {
  if (is_array_container(format, folder)) {
    found.push_back(folder);
    return;
  }
  if (depth == kMaxDepth) return;
  for (const std::string& path : list_folders(folder))
    add_containers(format, path, depth + 1, found);
}

std::vector<std::string> list_containers(const std::string& format, const std::string& root) {
  std::vector<std::string> found;
  for (const std::string& path : expand_glob(root)) {
    std::error_code unknown;
    VT_REQUIRE(DataError, fs::exists(path, unknown), "[data] {}: no such file or folder", path);
    if (fs::is_directory(path, unknown)) add_containers(format, path, 0, found);
  }
  VT_REQUIRE(DataError, !found.empty(), "[data] {}: holds no {} container", root, format);
  std::sort(found.begin(), found.end(), natural_less);
  return found;
}

std::unique_ptr<io::ArrayFile> open_raw_file(const std::string& path,
                                             const config::Source& source) {
  VT_REQUIRE(
      ConfigError, !source.dtype.empty() && !source.shape.empty(),
      "[data] source '{}': the reader raw needs dtype and shape, which the files do not hold",
      source.name.empty() ? source.root : source.name);
  return io::open_raw(path, {io::parse_raw_type(source.dtype), source.shape, source.offset, false});
}

constexpr int64_t kDefaultCacheBytes = int64_t{512} << 20;

struct SharedCache {
  std::mutex mutex;
  std::shared_ptr<io::ChunkCache> cache = std::make_shared<io::ChunkCache>(kDefaultCacheBytes);
};

SharedCache& shared_cache() {
  static SharedCache shared;
  return shared;
}

}  // namespace

void set_chunk_cache_bytes(int64_t max_bytes) {
  SharedCache& shared = shared_cache();
  const std::lock_guard lock(shared.mutex);
  if (shared.cache->chunks().max_bytes() != max_bytes)
    shared.cache = std::make_shared<io::ChunkCache>(max_bytes);
}

std::shared_ptr<io::ChunkCache> chunk_cache() {
  SharedCache& shared = shared_cache();
  const std::lock_guard lock(shared.mutex);
  return shared.cache;
}

bool is_array_container(const std::string& format, const std::string& path) {
  if (format == "zarr") return io::is_zarr(path);
  if (format == "n5") return io::is_n5(path);
  return false;
}

std::vector<std::string> list_array_files(const std::string& format, const std::string& root) {
  const bool is_container = format == "zarr" || format == "n5";
  return is_container ? list_containers(format, root) : list_plain(format, root);
}

std::unique_ptr<io::ArrayFile> open_array_file(const std::string& format, const std::string& path,
                                               const std::string& array,
                                               const config::Source& source) {
  if (format == "zarr") return io::open_zarr(path, array, chunk_cache());
  if (format == "n5") return io::open_n5(path, array, chunk_cache());
  if (format == "raw") return open_raw_file(path, source);
  if (format == "tiff") return io::open_tiff(path);
  VT_CHECK(format == "npy", "[data] '{}' is not a format of arrays", format);
  if (has_extension(path, {".npz"})) return io::open_npz(path, array);
  return io::open_npy(path);
}

}  // namespace vitrail::data
