// What a rank can refuse by looking at its own arguments, for every backend.

#include "vitrail/comm/host_communicator.h"
#include "vitrail/comm/reduce.h"

namespace vitrail::comm {
namespace {

void check_pair(const char* collective, const Buffer& in, const Buffer& out) {
  check_buffer(collective, in);
  check_buffer(collective, out);
  VT_REQUIRE(CommError, in.dtype == out.dtype,
             "[comm] {}: in and out must have one element type but got {} and {}", collective,
             core::name(in.dtype), core::name(out.dtype));
}

}  // namespace

void check_buffer(const char* collective, const Buffer& buffer) {
  require_carried(collective, buffer.dtype);
  VT_REQUIRE(CommError, buffer.count >= 0 && (buffer.data != nullptr || buffer.count == 0),
             "[comm] {}: a buffer needs count >= 0 and memory behind it but got count {} at {}",
             collective, buffer.count, buffer.data);
}

void check_gather(int ranks, const Buffer& in, const Buffer& out) {
  check_pair("all_gather", in, out);
  VT_REQUIRE(CommError, out.count == ranks * in.count,
             "[comm] all_gather: out must hold {} ranks x {} elements but holds {}", ranks,
             in.count, out.count);
}

void check_scatter(int ranks, const Buffer& in, const Buffer& out, Reduce op) {
  check_pair("reduce_scatter", in, out);
  require_reducible("reduce_scatter", in.dtype, op);
  VT_REQUIRE(CommError, in.count == ranks * out.count,
             "[comm] reduce_scatter: in must hold {} ranks x {} elements but holds {}", ranks,
             out.count, in.count);
}

void check_all_to_all(int ranks, const Buffer& in, const Buffer& out) {
  check_pair("all_to_all", in, out);
  VT_REQUIRE(
      CommError, in.count == out.count && in.count % ranks == 0,
      "[comm] all_to_all: in and out must hold the same multiple of {} elements but hold {} and {}",
      ranks, in.count, out.count);
  VT_REQUIRE(CommError, in.data != out.data || in.count == 0 || ranks == 1,
             "[comm] all_to_all: in and out must not be the same memory");
}

void check_peer(const char* collective, int ranks, int peer) {
  VT_REQUIRE(CommError, peer >= 0 && peer < ranks,
             "[comm] {}: the other rank must be in 0 ... {} but is {}", collective, ranks - 1,
             peer);
}

void check_color(int color) {
  VT_REQUIRE(CommError, color >= 0, "[comm] split: color must be >= 0 but is {}", color);
}

}  // namespace vitrail::comm
