#pragma once
/// The folder that holds a run's checkpoints: names, and what is removed when.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vitrail::train {

/// In the name of a folder that is being written or removed: "step-00001000.tmp-<id>".
constexpr std::string_view kUnfinishedMark = ".tmp-";

/// "step-00001000"
std::string step_folder_name(int64_t step);
/// The step in a name of that form; nothing for any other name.
std::optional<int64_t> step_in_name(const std::string& name);

/// Removes a folder and what it holds, as far as the system lets it.
void remove_folder(const std::string& path) noexcept;
/// Removes a checkpoint: renamed first, so that a kill half-way leaves no damaged checkpoint
/// behind.
void remove_checkpoint(const std::string& path) noexcept;
/// Removes the unfinished folders of processes that ended. The caller holds the folder's lock.
void remove_unfinished(const std::string& folder) noexcept;
/// Moves valid checkpoints past `step` into <folder>/superseded-N/. throws CheckpointError.
void set_aside_newer(const std::string& folder, int64_t step);
/// prune_checkpoints for the writer: `saved` was just written and counts as valid unread, and comes
/// first.
void prune_after_save(const std::string& folder, int64_t keep, const std::string& saved);

}  // namespace vitrail::train
