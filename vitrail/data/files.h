#pragma once
/// Which files a recipe's `root` or `labels` means.

#include <functional>
#include <string>
#include <vector>

namespace vitrail::data {

using FileFilter = std::function<bool(const std::string& path)>;

/// Numbers inside names count as numbers: "a2" comes before "a10". Equal numbers ("07", "7") and
/// everything else compare by bytes.
bool natural_less(const std::string& a, const std::string& b);

/// Files below a folder at any depth that `is_wanted` takes, in no order. Names that begin with a
/// dot are left out; links to folders are followed, a loop of links ends in the system's error.
/// throws   DataError: a folder that cannot be listed.
std::vector<std::string> collect_files(const std::string& folder, const FileFilter& is_wanted);

/// Sub-folders of a folder, without those whose name begins with a dot, in natural order.
std::vector<std::string> list_folders(const std::string& folder);

/// Files directly in a folder that `is_wanted` takes, in natural order.
std::vector<std::string> list_folder(const std::string& folder, const FileFilter& is_wanted);

/// `root` is one file, a folder (at any depth) or a glob (* ? [a-z]) of either; natural order.
/// `kinds` says in messages what is_wanted takes.
/// throws   DataError: nothing there, or no wanted file among it.
std::vector<std::string> list_files(const std::string& root, const FileFilter& is_wanted,
                                    const std::string& kinds);

/// What a glob matches, in natural order; the path itself when it exists or is no glob.
std::vector<std::string> expand_glob(const std::string& pattern);

}  // namespace vitrail::data
