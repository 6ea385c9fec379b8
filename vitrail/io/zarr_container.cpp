#include "vitrail/io/zarr_container.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/zarr_array.h"

namespace vitrail::io {
namespace {

using core::DataError;
namespace fs = std::filesystem;

constexpr int kMaxFolders = 10'000, kMaxDepth = 16;

/// s2 before s10: runs of digits compare by value.
bool comes_before(const std::string& a, const std::string& b) {
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!is_digit(a[i]) || !is_digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    const auto take = [&](const std::string& text, size_t& at) {
      while (at < text.size() && text[at] == '0') ++at;
      const size_t first = at;
      while (at < text.size() && is_digit(text[at])) ++at;
      return text.substr(first, at - first);
    };
    const std::string x = take(a, i), y = take(b, j);
    if (x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
  }
  return a.size() - i < b.size() - j;
}

std::vector<std::string> subfolders(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->is_directory(error)) names.push_back(it->path().filename().string());
  VT_REQUIRE(DataError, !error, "[data] {}: cannot be listed: {}", folder, error.message());
  std::sort(names.begin(), names.end(), comes_before);
  return names;
}

std::string joined(const std::string& folder, const std::string& name) {
  if (name.empty()) return folder;
  return folder.empty() || folder.back() == '/' ? folder + name : folder + '/' + name;
}

class Lister {
 public:
  Lister(const ContainerFormat& format, std::string root)
      : format_(format), root_(std::move(root)) {}

  void visit(const std::string& name, int depth) {
    VT_REQUIRE(DataError, ++folders_ <= kMaxFolders && depth <= kMaxDepth,
               "[data] {}: over {} folders, or over {} deep, were searched for {} arrays; name a "
               "folder below",
               root_, kMaxFolders, kMaxDepth, format_.name);
    const std::string folder = joined(root_, name);
    ArrayEntry entry;
    entry.name = name;
    try {
      if (const auto meta = format_.read_array(folder)) {
        entry.shape = meta->shape;
        entry.chunk_shape = ChunkedArray::smallest_chunk(*meta);
        entry.dtype = meta->dtype;
        entry.axes = meta->axes;
        entries.push_back(entry);
        return;
      }
    } catch (const DataError& error) {
      entry.error = error.what();
      entries.push_back(entry);
      return;
    }
    for (const std::string& child : subfolders(folder)) visit(joined(name, child), depth + 1);
  }

  std::vector<ArrayEntry> entries;

 private:
  const ContainerFormat& format_;
  const std::string root_;
  int folders_ = 0;
};

std::string names_of(const std::vector<ArrayEntry>& entries) {
  constexpr size_t kMost = 20;
  std::string names;
  for (size_t i = 0; i < std::min(entries.size(), kMost); ++i)
    names += (i > 0 ? ", " : "") + core::printable(entries[i].name);
  if (entries.size() > kMost) names += fmt::format(", and {} more", entries.size() - kMost);
  return names;
}

/// The scales s0, s1, ... of one image, as many tools write them without metadata: "s0" then.
bool are_scales(const std::vector<ArrayEntry>& entries) {
  if (entries.empty() || !entries[0].name.ends_with("s0")) return false;
  const std::string stem = entries[0].name.substr(0, entries[0].name.size() - 1);
  for (size_t i = 0; i < entries.size(); ++i)
    if (entries[i].name != stem + std::to_string(i)) return false;
  return stem.size() == 1 || stem[stem.size() - 2] == '/';
}

/// The folder of the array that a group stands for.
std::string choose_array(const ContainerFormat& format, const std::string& group) {
  if (const auto scales = format.read_multiscales(group); scales && !scales->paths.empty())
    return joined(group, scales->paths[0]);
  const std::vector<ArrayEntry> entries = list_arrays(format, group);
  VT_REQUIRE(DataError, !entries.empty(), "[data] {}: holds no {} array", group, format.name);
  VT_REQUIRE(DataError, entries.size() == 1 || are_scales(entries),
             "[data] {}: array must say which one is meant; there are: {}", group,
             names_of(entries));
  return joined(group, entries[0].name);
}

/// Axes as the multiscales of a group above tell them; "" if none does.
std::string axes_from_above(const ContainerFormat& format, const std::string& folder) {
  constexpr int kLevelsUp = 3;
  std::string below;
  fs::path group = fs::path(folder).lexically_normal();
  if (!group.has_filename()) group = group.parent_path();
  for (int i = 0; i < kLevelsUp && group.has_parent_path() && group != group.parent_path(); ++i) {
    below = below.empty() ? group.filename().string() : group.filename().string() + '/' + below;
    group = group.parent_path();
    const auto scales = format.read_multiscales(group.string());
    if (scales &&
        std::find(scales->paths.begin(), scales->paths.end(), below) != scales->paths.end())
      return scales->axes;
  }
  return "";
}

/// Changes when the array is written anew.
std::string identity_of(const ContainerFormat& format, const std::string& folder) {
  std::error_code error;
  std::string identity = fs::weakly_canonical(folder, error).string();
  for (const char* file : format.metadata_files) {
    const auto time = fs::last_write_time(joined(folder, file), error);
    if (!error) identity += fmt::format("|{}", time.time_since_epoch().count());
  }
  return identity;
}

}  // namespace

std::vector<ArrayEntry> list_arrays(const ContainerFormat& format, const std::string& path) {
  Lister lister(format, path);
  lister.visit("", 0);
  return std::move(lister.entries);
}

std::unique_ptr<ArrayFile> open_array(const ContainerFormat& format, const std::string& path,
                                      const std::string& array, std::shared_ptr<ChunkCache> cache) {
  std::error_code error;
  VT_REQUIRE(DataError, fs::is_directory(path, error), "[data] {}: must be a folder ({})", path,
             format.name);
  std::string folder = joined(path, array);
  if (!fs::is_directory(folder, error))
    core::fail<DataError>("[data] {}: has no array '{}'; there are: {}", path,
                          core::printable(array), names_of(list_arrays(format, path)));
  std::optional<ZarrMeta> meta = format.read_array(folder);
  if (!meta) {
    folder = choose_array(format, folder);
    meta = format.read_array(folder);
  }
  VT_REQUIRE(DataError, meta.has_value(), "[data] {}: is no {} array", folder, format.name);
  if (meta->axes.empty()) {
    meta->axes = axes_from_above(format, folder);
    if (meta->axes.size() != meta->shape.size()) meta->axes.clear();
  }
  const std::string identity = identity_of(format, folder);
  return std::make_unique<ChunkedArray>(std::move(*meta), folder, identity, std::move(cache));
}

}  // namespace vitrail::io
