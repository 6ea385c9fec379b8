#include "vitrail/train/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/checkpoint_files.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using core::CheckpointError;
constexpr std::string_view kPrefix = "step-";

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// The folder whose entries are checkpoints: `folder`, or its checkpoints/ when it is a run's.
fs::path checkpoints_folder(const std::string& folder) {
  const fs::path below = fs::path(folder) / "checkpoints";
  return is_folder(below) ? below : fs::path(folder);
}

/// Names of entries; a folder that cannot be read has none.
std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  return names;
}

/// Removes what comes after the `keep` first valid ones. `reason(path)` is empty for a valid one.
template <class Reason>
std::vector<std::string> prune(const std::vector<std::string>& newest_first, int64_t keep,
                               Reason&& reason) {
  std::vector<std::string> removed;
  int64_t valid = 0;
  for (const std::string& path : newest_first) {
    if (valid >= keep) {
      remove_checkpoint(path);
      removed.push_back(path);
    } else if (reason(path).empty()) {
      ++valid;
    }
  }
  return removed;
}

/// The first candidate for which `reason` is empty; the others with their reasons.
template <class Reason>
Newest first_valid(const std::vector<std::string>& newest_first, Reason&& reason) {
  Newest newest;
  for (const std::string& path : newest_first) {
    std::string why = reason(path);
    if (why.empty()) {
      newest.path = path;
      return newest;
    }
    newest.skipped.push_back({path, std::move(why)});
  }
  return newest;
}

/// Every rank verifies its share; the first reason of any rank, the same on all.
std::string why_invalid_together(const std::string& path, comm::Communicator& group) {
  std::string mine;
  try {
    CheckpointReader(path).verify(group.rank(), group.size());
  } catch (const std::exception& error) {
    mine = error.what();
    if (mine.empty()) mine = "unknown error";
  }
  for (const std::string& reason : comm::gather_strings(group, mine))
    if (!reason.empty()) return reason;
  return "";
}

/// Rank 0's list, so that ranks that see a folder at different times agree.
std::vector<std::string> list_of_rank_0(const std::string& folder, comm::Communicator& group) {
  std::string lines;
  if (group.rank() == 0)
    for (const std::string& path : list_checkpoints(folder)) lines += path + '\0';
  const std::string shared = comm::gather_strings(group, lines)[0];
  std::vector<std::string> paths;
  for (size_t begin = 0; begin < shared.size();) {
    const size_t end = shared.find('\0', begin);
    paths.push_back(shared.substr(begin, end - begin));
    begin = end + 1;
  }
  return paths;
}

std::string reasons_text(const std::vector<Skipped>& skipped) {
  std::string text;
  for (const Skipped& one : skipped) text += (text.empty() ? "" : "; ") + one.reason;
  return text;
}

}  // namespace

std::string step_folder_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::optional<int64_t> step_in_name(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  int64_t step = 0;
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc{} || stop != end || step_folder_name(step) != name) return std::nullopt;
  return step;
}

void remove_folder(const std::string& path) noexcept {
  try {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  } catch (...) {  // out of memory: the folder stays and is removed at the next start
  }
}

void remove_checkpoint(const std::string& path) noexcept {
  try {
    const std::string aside = path + std::string(kUnfinishedMark) + "removed";
    std::error_code error;
    fs::remove_all(aside, error);
    fs::rename(path, aside, error);
    remove_folder(error ? path : aside);
  } catch (...) {
  }
}

void remove_unfinished(const std::string& folder) noexcept {
  try {
    for (const std::string& name : entries(folder)) {
      const size_t mark = name.find(kUnfinishedMark);
      if (mark != std::string::npos && step_in_name(name.substr(0, mark)))
        remove_folder((fs::path(folder) / name).string());
    }
  } catch (...) {
  }
}

void set_aside_newer(const std::string& folder, int64_t step) {
  fs::path target;
  for (const std::string& path : list_checkpoints(folder)) {
    // One that is not valid is nobody's course; saving that step again replaces it.
    if (*step_in_name(fs::path(path).filename().string()) <= step ||
        !why_invalid(path, true).empty())
      continue;
    std::error_code error;
    for (int number = 1; target.empty(); ++number) {
      const fs::path candidate = fs::path(folder) / fmt::format("superseded-{}", number);
      if (!fs::exists(candidate, error)) target = candidate;
    }
    fs::create_directories(target, error);
    if (!error) fs::rename(path, target / fs::path(path).filename(), error);
    VT_REQUIRE(CheckpointError, !error, "[checkpoint] {}: cannot be moved into {}: {}", path,
               target.string(), error.message());
  }
}

void prune_after_save(const std::string& folder, int64_t keep, const std::string& saved) {
  // Checkpoints past the one just saved belong to a course that was given up; they neither count
  // nor go.
  const int64_t step = step_in_name(fs::path(saved).filename().string()).value_or(0);
  std::vector<std::string> candidates = list_checkpoints(folder);
  std::erase_if(candidates, [&](const std::string& path) {
    return *step_in_name(fs::path(path).filename().string()) > step;
  });
  prune(candidates, keep,
        [&](const std::string& path) { return path == saved ? "" : why_invalid(path, false); });
}

std::vector<std::string> list_checkpoints(const std::string& folder) {
  const fs::path where = checkpoints_folder(folder);
  std::vector<std::pair<int64_t, std::string>> found;
  for (const std::string& name : entries(where))
    if (const auto step = step_in_name(name)) found.emplace_back(*step, (where / name).string());
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

std::string why_invalid(const std::string& path, bool full) {
  try {
    const CheckpointReader reader(path);
    if (full) reader.verify();
    return "";
  } catch (const core::Error& error) {
    return error.what();
  }
}

Newest find_newest_valid(const std::string& folder) {
  return first_valid(list_checkpoints(folder),
                     [](const std::string& path) { return why_invalid(path, true); });
}

Newest find_newest_valid(const std::string& folder, comm::Communicator& group) {
  return first_valid(list_of_rank_0(folder, group),
                     [&](const std::string& path) { return why_invalid_together(path, group); });
}

std::string resolve_checkpoint(const std::string& path) {
  VT_REQUIRE(CheckpointError, is_folder(path), "[checkpoint] {}: no such folder", path);
  const fs::path manifest = fs::path(path) / kManifestName;
  std::error_code ignored;
  if (fs::exists(manifest, ignored)) return path;
  const Newest newest = find_newest_valid(path);
  if (!newest.path.empty()) return newest.path;
  VT_REQUIRE(CheckpointError, !newest.skipped.empty(),
             "[checkpoint] {}: holds no checkpoint (no manifest.json, no folder step-*)", path);
  core::fail<CheckpointError>("[checkpoint] {}: none of {} checkpoints is valid: {}", path,
                              newest.skipped.size(), reasons_text(newest.skipped));
}

Newest resolve_resume(const std::string& resume, const std::string& folder,
                      comm::Communicator& group) {
  if (resume == "never") return {};
  if (resume == "auto") {
    Newest newest = find_newest_valid(folder, group);
    // Starting anew would quietly give up what the run had reached.
    VT_REQUIRE(
        CheckpointError, !newest.path.empty() || newest.skipped.empty(),
        "[checkpoint] {}: none of {} checkpoints is valid: {}; use --resume never to start anew",
        folder, newest.skipped.size(), reasons_text(newest.skipped));
    return newest;
  }
  // Rank 0 looks; an answer that begins with '!' is its error.
  std::string answer;
  if (group.rank() == 0) {
    try {
      answer = "=" + resolve_checkpoint(resume);
    } catch (const core::Error& error) {
      answer = std::string("!") + error.what();
    }
  }
  answer = comm::gather_strings(group, answer)[0];
  VT_REQUIRE(CheckpointError, answer.starts_with("="), "{}", answer.substr(1));
  Newest newest{answer.substr(1), {}};
  const std::string reason = why_invalid_together(newest.path, group);
  VT_REQUIRE(CheckpointError, reason.empty(), "{}", reason);
  return newest;
}

std::vector<std::string> prune_checkpoints(const std::string& folder, int64_t keep, bool full) {
  VT_REQUIRE(ConfigError, keep >= 1, "[checkpoint] --keep must be at least 1 but got {}", keep);
  return prune(list_checkpoints(folder), keep,
               [&](const std::string& path) { return why_invalid(path, full); });
}

}  // namespace vitrail::train
