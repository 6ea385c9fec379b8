#include "vitrail/parallel/host.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

/// The text after "key" and its colon in a file of "key : value" lines; empty when there is none.
std::string value_in(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t start = line.find_first_not_of(": \t", line.find(':'));
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

}  // namespace

std::string host_name_of_cpu() {
  const std::string name = value_in("/proc/cpuinfo", "model name");
  return name.empty() ? "CPU" : name;
}

int64_t host_peak_bytes() {
  int64_t kib = 0;
  std::istringstream(value_in("/proc/self/status", "VmHWM")) >> kib;
  return kib * 1024;
}

void reset_host_peak() {
  // 5 resets the peak resident size (man 5 proc); where it is not allowed the peak is that of the
  // whole process.
  std::ofstream("/proc/self/clear_refs") << "5";
}

int64_t host_total_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
}

std::byte* host_pages(int64_t bytes) {
  constexpr size_t kPage = 4096;
  const size_t whole = (static_cast<size_t>(bytes) + kPage - 1) / kPage * kPage;
  void* memory = std::aligned_alloc(kPage, whole);
  VT_REQUIRE(OutOfMemoryError, memory, "[memory] {} bytes of host memory could not be had", bytes);
  return static_cast<std::byte*>(memory);
}

}  // namespace vitrail::parallel
