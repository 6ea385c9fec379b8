#include "vitrail/app/output.h"

#include <filesystem>

#include "vitrail/core/error.h"

namespace vitrail::app {

void check_folder(const char* where, const char* option, const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  VT_REQUIRE(ConfigError, folder.empty() || std::filesystem::is_directory(folder),
             "[{}] {} {}: there is no folder {}; make it first", where, option, path,
             folder.string());
}

}  // namespace vitrail::app
