#include "tests/fuzz/fuzz_target.h"
#include "vitrail/io/csv_gz.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    fuzz::Choices choices{file};
    if (choices.take(2) == 0)
      (void)io::inflate_gzip(choices.rest, fuzz::kName, 1 << 20);
    else
      (void)io::parse_csv(fuzz::text_of(choices.rest), fuzz::kName, 0);
  });
}
