#pragma once
/// Files that are either whole or not there, and stay so after a power cut.
///
/// Errors   Error naming the path and the system's reason (disk full, permission); DataError where
/// a file that was
///          asked for cannot be read.

#include <cstdint>
#include <string>
#include <string_view>

namespace vitrail::core {

/// Replaces `path` by `bytes`: written to a temporary file in the same folder, flushed to disk,
/// renamed, folder flushed. After an error the old file is as it was and the temporary one is gone.
void write_file_atomic(const std::string& path, std::string_view bytes);

/// A name in the folder of `path` that no other process or thread uses.
std::string temporary_name(const std::string& path);

/// write(temporary) fills and flushes a temporary file beside `path`, which then takes its place;
/// returns what write returns. If write throws, the old file is as it was and the temporary one is
/// gone.
template <class Write>
auto replace_file(const std::string& path, Write write);

/// Writes all bytes at the end of what the open file `descriptor` holds; `path` is only for the
/// message.
void write_all(int descriptor, std::string_view bytes, const std::string& path);

/// Flushes a file or folder to disk.
void fsync_path(const std::string& path);

/// Flushes the folder that holds `path`, so that a rename or a new name in it lasts.
void fsync_parent(const std::string& path);

/// The whole file. Also reads what has no size beforehand (a pipe, /proc).
/// throws   DataError if it cannot be read or is longer than max_bytes.
std::string read_file(const std::string& path, int64_t max_bytes);

/// Makes the folder and its parents; fine if it is there.
void make_directories(const std::string& path);

/// The two halves of replace_file: renames and flushes the folder; removes, and never throws.
void move_into_place(const std::string& temporary, const std::string& path);
void remove_quietly(const std::string& path) noexcept;

template <class Write>
auto replace_file(const std::string& path, Write write) {
  const std::string temporary = temporary_name(path);
  try {
    auto result = write(temporary);
    move_into_place(temporary, path);
    return result;
  } catch (...) {
    remove_quietly(temporary);
    throw;
  }
}

}  // namespace vitrail::core
