#include "vitrail/io/codec.h"

#include <vector>

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

/// The first bytes choose one or two codecs and the decoded size; all others are the chunk.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    fuzz::Choices choices{file};
    std::vector<io::ByteCodec> codecs(1 + choices.take(2));
    for (io::ByteCodec& codec : codecs)
      codec = {static_cast<io::ByteCodec::Kind>(choices.take(8)), int64_t{1} << choices.take(4)};
    std::vector<std::byte> plain(choices.take(256) * 16 + choices.take(16));
    io::decode_bytes(codecs, choices.rest, plain, {fuzz::kName, 0});
  });
}
