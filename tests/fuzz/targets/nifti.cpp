#include "vitrail/io/nifti.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    (void)io::decode_nifti(file, fuzz::kName, {.max_values = 1 << 22, .max_file_bytes = 1 << 24});
  });
}
