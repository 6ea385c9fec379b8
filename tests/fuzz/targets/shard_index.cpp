#include "tests/fuzz/fuzz_target.h"
#include "vitrail/io/zarr_metadata.h"

using namespace vitrail;

/// The first bytes choose the layout; all others are the index.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::try_parse<core::DataError>(data, size, [](std::span<const std::byte> file) {
    fuzz::Choices choices{file};
    io::ShardLayout layout;
    layout.chunks = 1 + choices.take(16);
    layout.grid = {layout.chunks};
    layout.chunk_shape = {4};
    layout.index_has_checksum = choices.take(2) == 1;
    layout.index_is_big_endian = choices.take(2) == 1;
    const int64_t shard_bytes = choices.take(256) * 16;
    // Callers read exactly the index's bytes.
    if (static_cast<int64_t>(choices.rest.size()) < layout.index_bytes()) return;
    const auto index = choices.rest.first(static_cast<size_t>(layout.index_bytes()));
    for (const io::ShardEntry& entry :
         io::parse_shard_index(index, layout, shard_bytes, fuzz::kName))
      if (entry.bytes >= 0 && (entry.offset < 0 || entry.offset + entry.bytes > shard_bytes))
        std::abort();
  });
}
