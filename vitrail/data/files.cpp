#include "vitrail/data/files.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include <glob.h>

#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

bool is_hidden(const fs::path& path) { return path.filename().native().starts_with('.'); }

[[noreturn]] void fail_listing(const std::string& folder, const std::error_code& error) {
  core::fail<core::DataError>("[data] {}: cannot list the folder: {}", folder, error.message());
}

/// The run of digits that starts at `at`, without leading zeros.
std::string_view number_at(const std::string& text, size_t at) {
  size_t end = at;
  while (end < text.size() && is_digit(text[end])) ++end;
  while (at + 1 < end && text[at] == '0') ++at;
  return std::string_view(text).substr(at, end - at);
}

size_t after_number(const std::string& text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

/// Entries directly in a folder, in natural order.
template <class Take>
std::vector<std::string> list_entries(const std::string& folder, const Take& take) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (!is_hidden(entry->path()) && take(*entry)) paths.push_back(entry->path().string());
  if (error) fail_listing(folder, error);
  std::sort(paths.begin(), paths.end(), natural_less);
  return paths;
}

}  // namespace

bool natural_less(const std::string& a, const std::string& b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view x = number_at(a, i), y = number_at(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i = after_number(a, i);
      j = after_number(b, j);
    } else if (a[i] != b[j]) {
      return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    } else {
      ++i, ++j;
    }
  }
  const bool a_ends = i == a.size(), b_ends = j == b.size();
  return a_ends != b_ends ? a_ends : a < b;
}

std::vector<std::string> collect_files(const std::string& folder, const FileFilter& is_wanted) {
  std::vector<std::string> files;
  std::error_code error, unknown;
  fs::recursive_directory_iterator entry(folder, fs::directory_options::follow_directory_symlink,
                                         error),
      end;
  for (; !error && entry != end; entry.increment(error)) {
    if (is_hidden(entry->path()))
      entry.disable_recursion_pending();
    else if (is_wanted(entry->path().string()) && !entry->is_directory(unknown))
      files.push_back(entry->path().string());
  }
  if (error) fail_listing(folder, error);
  return files;
}

std::vector<std::string> list_folders(const std::string& folder) {
  return list_entries(folder, [](const fs::directory_entry& entry) {
    std::error_code unknown;
    return entry.is_directory(unknown);
  });
}

std::vector<std::string> list_folder(const std::string& folder, const FileFilter& is_wanted) {
  return list_entries(folder, [&](const fs::directory_entry& entry) {
    std::error_code unknown;
    return is_wanted(entry.path().string()) && !entry.is_directory(unknown);
  });
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  std::error_code unknown;
  if (fs::exists(pattern, unknown) || pattern.find_first_of("*?[") == std::string::npos)
    return {pattern};
  glob_t found{};
  const std::unique_ptr<glob_t, void (*)(glob_t*)> owner(&found, ::globfree);
  const int status = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  VT_REQUIRE(DataError, status == 0 || status == GLOB_NOMATCH, "[data] {}: the glob cannot be read",
             pattern);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  std::sort(paths.begin(), paths.end(), natural_less);
  return paths;
}

std::vector<std::string> list_files(const std::string& root, const FileFilter& is_wanted,
                                    const std::string& kinds) {
  std::vector<std::string> files;
  for (const std::string& path : expand_glob(root)) {
    std::error_code unknown;
    if (fs::is_directory(path, unknown)) {
      for (std::string& file : collect_files(path, is_wanted)) files.push_back(std::move(file));
    } else if (path == root) {  // named by itself, whatever its extension
      VT_REQUIRE(DataError, fs::exists(path, unknown), "[data] {}: no such file or folder", path);
      files.push_back(path);
    } else if (is_wanted(path)) {
      files.push_back(path);
    }
  }
  VT_REQUIRE(DataError, !files.empty(), "[data] {}: holds no {} file", root, kinds);
  std::sort(files.begin(), files.end(), natural_less);
  return files;
}

}  // namespace vitrail::data
