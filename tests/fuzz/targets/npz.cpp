#include "vitrail/io/npz.h"

#include <vector>

#include "tests/fuzz/fuzz_target.h"
#include "vitrail/core/dtype.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    const auto array = io::parse_npz(file, nullptr, fuzz::kName, "", {.max_member_bytes = 1 << 22});
    std::vector<std::byte> values(static_cast<size_t>(core::size_bytes(array->dtype())));
    const std::vector<int64_t> origin(array->shape().size()), sides(array->shape().size(), 1);
    for (const int64_t side : array->shape())
      if (side == 0) return;
    array->read(origin, sides, values.data());
  });
}
