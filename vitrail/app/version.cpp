#include "vitrail/app/version.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "vitrail/app/libraries.h"

namespace vitrail::app {

extern const char* const kProgramVersion;  // generated at build time
extern const char* const kGitCommit;
extern const char* const kTorchVersion;

std::string program_version() { return fmt::format("{} ({})", kProgramVersion, kGitCommit); }

std::string version_text() {
  std::string text =
      fmt::format("vitrail {}\ntorch   {} (built with)\n", program_version(), kTorchVersion);
  for (const Library& library : loaded_libraries())
    text += fmt::format("{:7} {}\n", library.name,
                        library.version.empty() ? "not loaded" : library.version);
  text.pop_back();
  return text;
}

}  // namespace vitrail::app
