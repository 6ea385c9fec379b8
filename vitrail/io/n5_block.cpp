#include "vitrail/io/n5_block.h"

#include <algorithm>
#include <array>

#include "vitrail/core/error.h"
#include "vitrail/io/zarr_metadata.h"
#include "vitrail/io/zarr_strided.h"

namespace vitrail::io {
namespace {

using core::DataError;
using Sides = std::array<int64_t, kMaxAxes>;

/// Big-endian, at `at`, which then lies behind it.
int64_t take_number(std::span<const std::byte> block, size_t& at, size_t bytes) {
  int64_t value = 0;
  for (const size_t end = at + bytes; at < end; ++at)
    value = value << 8 | static_cast<int64_t>(block[at]);
  return value;
}

/// Mode, number of axes, sides from the last axis to the first; in mode 1 also the number of
/// elements, which must then be the product of the sides.
size_t parse_header(std::span<const std::byte> block, std::span<const int64_t> sides, Sides& stored,
                    const Where& where) {
  const size_t axes = sides.size();
  VT_REQUIRE(DataError, block.size() >= 4 + 4 * axes, "[data] {}: too short for an N5 block",
             where.text());
  size_t at = 0;
  const int64_t mode = take_number(block, at, 2);
  const int64_t stored_axes = take_number(block, at, 2);
  VT_REQUIRE(DataError, mode == 0 || mode == 1,
             "[data] {}: N5 blocks of mode {} (objects) are not supported", where.text(), mode);
  VT_REQUIRE(DataError, stored_axes == static_cast<int64_t>(axes),
             "[data] {}: the block must have {} axes but has {}", where.text(), axes, stored_axes);
  int64_t count = 1;
  for (size_t k = axes; k-- > 0;) {
    stored[k] = take_number(block, at, 4);
    VT_REQUIRE(DataError, stored[k] >= 1 && stored[k] <= sides[k],
               "[data] {}: a block's side must be 1 to {} but is {}", where.text(), sides[k],
               stored[k]);
    count *= stored[k];  // at most a chunk's
  }
  if (mode == 1) {
    VT_REQUIRE(DataError, block.size() >= at + 4, "[data] {}: too short for an N5 block",
               where.text());
    const int64_t elements = take_number(block, at, 4);
    VT_REQUIRE(DataError, elements == count,
               "[data] {}: N5 blocks of varying length are not supported", where.text());
  }
  return at;
}

}  // namespace

void decode_n5_block(std::span<const std::byte> block, std::span<const ByteCodec> codecs,
                     std::span<const int64_t> sides, int64_t item, std::span<std::byte> values,
                     const Where& where) {
  const size_t axes = sides.size();
  Sides stored{}, from{}, to{};
  const std::span<const std::byte> body = block.subspan(parse_header(block, sides, stored, where));
  int64_t from_step = item, to_step = item;
  for (size_t k = axes; k-- > 0; from_step *= stored[k], to_step *= sides[k]) {
    from[k] = from_step;
    to[k] = to_step;
  }
  check_expansion(codecs, static_cast<int64_t>(body.size()), from_step, where);
  if (from_step == to_step) return decode_bytes(codecs, body, values, where);
  const std::span<std::byte> part = Scratch::get(Scratch::Use::n5, static_cast<size_t>(from_step));
  decode_bytes(codecs, body, part, where);
  std::fill(values.begin(), values.end(), std::byte{0});
  const auto first = [axes](const Sides& all) { return std::span(all).first(axes); };
  copy_strided(part.data(), first(from), values.data(), first(to), first(stored), item);
}

}  // namespace vitrail::io
