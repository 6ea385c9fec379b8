#include "tests/fuzz/fuzz_target.h"
#include "vitrail/io/image.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    if (file.empty() || file[0] != std::byte{0x89}) return;
    (void)io::decode_image(file, fuzz::kName, {.max_pixels = 1 << 20});
  });
}
