#include "vitrail/data/class_folders.h"

#include <algorithm>
#include <filesystem>

#include "vitrail/core/error.h"

namespace vitrail::data {

namespace fs = std::filesystem;

ClassFolders list_class_folders(const std::string& root, const FileFilter& is_wanted,
                                const std::string& reader, const std::string& kinds) {
  ClassFolders classes;
  for (const std::string& folder : list_folders(root))
    classes.names.push_back(fs::path(folder).filename().string());
  std::sort(classes.names.begin(), classes.names.end());
  VT_REQUIRE(DataError, !classes.names.empty(),
             "[data] {}: expected one folder per class but found none; the reader {} wants "
             "root/CLASS/file",
             root, reader);
  for (size_t label = 0; label < classes.names.size(); ++label) {
    const std::string folder = (fs::path(root) / classes.names[label]).string();
    std::vector<std::string> files = collect_files(folder, is_wanted);
    std::sort(files.begin(), files.end());
    VT_REQUIRE(DataError, !files.empty(), "[data] {}: the class folder holds no {} file", folder,
               kinds);
    for (std::string& path : files)
      classes.samples.push_back({std::move(path), static_cast<int64_t>(label)});
  }
  return classes;
}

}  // namespace vitrail::data
