#include "vitrail/io/csv.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    io::parse_csv_records(fuzz::text_of(file), fuzz::kName, ',', [](const io::CsvRecord&) {});
  });
}
