#pragma once
/// The collectives of host groups, written once over a Transport; blocking, run by the group's
/// worker.
///
/// Bits       every element is reduced in rank order by reduce_in_order(), so neither the
/// algorithm, the size, the
///            backend nor timing changes a bit.
/// Agreement  each collective opens with an exchange of cards (what is called, on how much, of
/// which type); a rank
///            whose card differs is named on every rank before any data moves. Small data travels
///            on the card.
/// Traffic    large all_reduce and broadcast: 2 (n-1)/n of the buffer out of each rank
/// (reduce-scatter + all-gather).

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/transport.h"

namespace vitrail::comm {

enum class Collective : uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  broadcast,
  all_to_all,
  send,
  barrier,
  split
};
const char* name(Collective collective);

/// What a rank believes is being called; `count` is that of the input. Exchanged as raw bytes.
struct Call {
  Collective collective = Collective::barrier;
  Reduce op = Reduce::sum;
  core::DType dtype = core::DType::u8;
  int32_t root = -1;
  int64_t count = 0;
  bool operator==(const Call&) const = default;
  /// "all_reduce (sum) of 8 x f32"
  std::string describe() const;
};

struct Card {
  static constexpr int64_t kInline = 232;
  Call call;
  std::array<std::byte, kInline> data{};
};

class HostCollectives {
 public:
  HostCollectives(Transport& transport, Waiter& waiter) : transport_(transport), waiter_(waiter) {}

  void all_reduce(Buffer inout, Reduce op);
  void all_gather(Buffer in, Buffer out);
  void reduce_scatter(Buffer in, Buffer out, Reduce op);
  void broadcast(Buffer inout, int root);
  void all_to_all(Buffer in, Buffer out);
  void barrier();
  /// Every rank's (color, key).
  std::vector<std::array<int, 2>> gather_colors(int color, int key);

 private:
  /// Exchanges cards with every rank and refuses a call that differs from this rank's.
  std::vector<Card> meet(const Call& call, const void* inline_data = nullptr,
                         int64_t inline_bytes = 0);
  void all_reduce_piece(Buffer piece, Reduce op);
  void share_slices(Buffer whole);
  void add_exchange(std::vector<RequestPtr>& requests, int peer, Buffer out, Buffer in);

  Transport& transport_;
  Waiter& waiter_;
  std::vector<std::byte> scratch_;  // kept between calls; at most about kPieceBytes
};

/// throws CommError unless what `peer` sent is what this rank expects.
void require_same_call(const Call& mine, int rank, const Call& theirs, int peer);

}  // namespace vitrail::comm
