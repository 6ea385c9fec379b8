#pragma once
/// A class a folder: root/CLASS/.../file.

#include <string>
#include <vector>

#include "vitrail/data/files.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

struct ClassFolders {
  std::vector<std::string> names;   // sorted by their bytes; the place is the label
  std::vector<SampleInfo> samples;  // class after class, paths sorted by their bytes
};

/// The sub-folders of `root` as classes, with the files at any depth that `is_wanted` takes.
/// `reader` and `kinds` are for messages.
/// throws   DataError: no sub-folder, or one without such a file.
ClassFolders list_class_folders(const std::string& root, const FileFilter& is_wanted,
                                const std::string& reader, const std::string& kinds);

}  // namespace vitrail::data
