#include "vitrail/io/tiff.h"

#include <vector>

#include "tests/fuzz/fuzz_target.h"
#include "vitrail/core/dtype.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    const auto array = io::parse_tiff(file, nullptr, fuzz::kName);
    int64_t bytes = core::size_bytes(array->dtype());
    for (const int64_t side : array->shape()) bytes *= side;
    if (bytes > 1 << 22) return;
    std::vector<std::byte> values(static_cast<size_t>(bytes));
    array->read(std::vector<int64_t>(array->shape().size()), array->shape(), values.data());
  });
}
