#pragma once
/// Files that a verb writes at its end, looked after before its work.

#include <string>

namespace vitrail::app {

/// throws ConfigError when the folder of `path` is missing; `where` and `option` ("data", "--statistics") go into the
/// message. A path without a folder, "-" and none are fine.
void check_folder(const char* where, const char* option, const std::string& path);

}  // namespace vitrail::app
