#include "vitrail/io/tar.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    io::list_tar(file, fuzz::kName, [&](const io::TarMember& member) {
      if (member.offset < 0 || member.size < 0 ||
          member.offset + member.size > static_cast<int64_t>(file.size()))
        std::abort();
    });
  });
}
