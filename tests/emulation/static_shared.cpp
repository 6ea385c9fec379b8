#include "static_shared.h"

#include <cstdint>

#include <link.h>

namespace emulation {
namespace {

thread_local volatile unsigned char anchor;  // there is always some storage

struct Search {
  uintptr_t inside;
  std::span<unsigned char> found;
};

int visit(dl_phdr_info* info, size_t, void* argument) {
  auto& search = *static_cast<Search*>(argument);
  if (info->dlpi_tls_data == nullptr) return 0;
  const auto begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_TLS || search.inside < begin ||
        search.inside >= begin + segment.p_memsz)
      continue;
    search.found = {static_cast<unsigned char*>(info->dlpi_tls_data), segment.p_memsz};
    return 1;
  }
  return 0;
}

}  // namespace

std::span<unsigned char> static_shared() {
  anchor = 1;
  Search search{reinterpret_cast<uintptr_t>(&anchor), {}};
  dl_iterate_phdr(visit, &search);
  return search.found;
}

}  // namespace emulation
