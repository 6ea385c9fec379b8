#include "vitrail/data/memory_watch.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <vector>

#include <unistd.h>

namespace vitrail::data {
namespace {

constexpr int64_t kUnknown = int64_t{1} << 62;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The number that a file holds; kUnknown for "max", a missing file, or one too large.
int64_t number_in(const std::string& path) {
  const std::string text = text_of(path);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? std::min(value, kUnknown) : kUnknown;
}

/// The number behind a word at the start of a line; -1 without such a line.
int64_t value_of(const std::string& text, const std::string& word) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream parts(line);
    std::string name;
    int64_t value = 0;
    if (parts >> name >> value && name == word) return value;
  }
  return -1;
}

struct Controller {
  std::string folder, limit, usage, cache;  // names of its files; cache: a word in memory.stat
};

/// Narrows `memory` by one group.
void take_group(const std::string& folder, const Controller& files, HostMemory& memory) {
  const int64_t limit = number_in(folder + files.limit);
  if (limit >= memory.limit_bytes) return;  // v1 writes a huge number for none
  const int64_t usage = number_in(folder + files.usage);
  if (usage == kUnknown) return;
  const int64_t cache =
      std::max<int64_t>(value_of(text_of(folder + "memory.stat"), files.cache), 0);
  memory.limit_bytes = limit;
  memory.available_bytes =
      std::min(memory.available_bytes, std::max<int64_t>(limit - usage + cache, 0));
}

/// Groups above this one bind it too; inside a container the path may not be there, but its root is.
void take_groups(std::string path, const Controller& files, HostMemory& memory) {
  while (true) {
    take_group(files.folder + path + (path.ends_with('/') ? "" : "/"), files, memory);
    if (path.empty() || path == "/") return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

void take_control_groups(const std::string& root, HostMemory& memory) {
  const Controller v2{root + "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
  const Controller v1{root + "sys/fs/cgroup/memory", "memory.limit_in_bytes",
                      "memory.usage_in_bytes", "total_inactive_file"};
  std::istringstream lines(text_of(root + "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == ",,") take_groups(line.substr(second + 1), v2, memory);
    if (names.find(",memory,") != std::string::npos)
      take_groups(line.substr(second + 1), v1, memory);
  }
}

}  // namespace

HostMemory host_memory(const std::string& root) {
  HostMemory memory{0, kUnknown, kUnknown};
  const std::string machine = text_of(root + "proc/meminfo");
  if (const int64_t kib = value_of(machine, "MemTotal:"); kib >= 0) memory.limit_bytes = kib * 1024;
  if (const int64_t kib = value_of(machine, "MemAvailable:"); kib >= 0)
    memory.available_bytes = kib * 1024;
  take_control_groups(root, memory);
  std::istringstream pages(text_of(root + "proc/self/statm"));
  int64_t all = 0, resident = 0;
  if (pages >> all >> resident) memory.rss_bytes = resident * ::sysconf(_SC_PAGESIZE);
  return memory;
}

}  // namespace vitrail::data
