#pragma once
/// Runs Python, where the peers of our formats live.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace vitrail::testing {

/// What `script` prints; `folder` is its working folder. Ends with "python failed" if the script
/// does.
inline std::string run_python(const std::string& folder, const std::string& script) {
  std::ofstream(folder + "/script.py") << script;
  const std::string command =
      "cd '" + folder + "' && '" VITRAIL_PYTHON "' script.py 2>&1 || echo python failed";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "python failed";
  std::string said;
  char part[4096];
  while (const size_t got = std::fread(part, 1, sizeof part, pipe)) said.append(part, got);
  ::pclose(pipe);
  return said;
}

}  // namespace vitrail::testing
