#include "vitrail/io/npy.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    (void)io::NpyFile::parse(file, fuzz::kName);
  });
}
