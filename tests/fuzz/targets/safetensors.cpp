#include "vitrail/io/safetensors.h"

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::CheckpointError>(data, size, [](std::span<const std::byte> file) {
    const io::SafetensorsFile parsed = io::SafetensorsFile::parse(file, fuzz::kName);
    for (const std::string& name : parsed.names()) (void)parsed.bytes(name);
  });
}
