#include "vitrail/io/idx.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    const io::IdxArray array = io::parse_idx(file, fuzz::kName);
    int64_t count = 1;
    for (const int64_t side : array.shape) count *= side;
    if (count > 0) (void)(array.at(0) + array.at(count - 1));
  });
}
