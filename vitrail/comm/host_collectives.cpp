#include "vitrail/comm/host_collectives.h"

#include <algorithm>
#include <cstring>

#include "vitrail/comm/reduce.h"

namespace vitrail::comm {
namespace {

static_assert(sizeof(Card) == 256 && std::is_trivially_copyable_v<Card>);

// Large buffers are reduced in pieces of this size, which bounds the scratch memory and every
// single message.
constexpr int64_t kPieceBytes = int64_t{16} << 20;
// Below this a broadcast goes straight from the root to all.
constexpr int64_t kSmallBroadcast = int64_t{64} << 10;

Buffer part(Buffer whole, int64_t first, int64_t count) {
  auto* bytes = static_cast<std::byte*>(whole.data) + first * core::size_bytes(whole.dtype);
  return {bytes, count, whole.dtype};
}

/// Elements of `whole` that rank `index` of `ranks` owns; a remainder is spread over the ranks.
Buffer slice(Buffer whole, int index, int ranks) {
  const int64_t base = whole.count / ranks, extra = whole.count % ranks;
  const int64_t first = index * base + std::min<int64_t>(index, extra);
  return part(whole, first, base + (index < extra ? 1 : 0));
}

void copy(Buffer from, Buffer to) {
  if (from.data != to.data && from.bytes() > 0)
    std::memmove(to.data, from.data, static_cast<size_t>(from.bytes()));
}

}  // namespace

const char* name(Collective collective) {
  constexpr const char* names[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast",
                                   "all_to_all", "send",       "barrier",        "split"};
  return names[static_cast<int>(collective)];
}

std::string Call::describe() const {
  // What a peer sent may be anything, so nothing here may index a table unchecked.
  if (collective > Collective::split || op > Reduce::min || dtype > core::DType::boolean)
    return "unreadable bytes";
  std::string text = name(collective);
  if (collective == Collective::barrier || collective == Collective::split) return text;
  if (collective == Collective::all_reduce || collective == Collective::reduce_scatter)
    text += fmt::format(" ({})", name(op));
  if (collective == Collective::broadcast) text += fmt::format(" from rank {}", root);
  return text + fmt::format(" of {} x {}", count, core::name(dtype));
}

void require_same_call(const Call& mine, int rank, const Call& theirs, int peer) {
  VT_REQUIRE(
      CommError, mine == theirs,
      "[comm] {}: every rank must make the same call but rank {} calls {} and rank {} calls {}",
      name(mine.collective), rank, mine.describe(), peer, theirs.describe());
}

std::vector<Card> HostCollectives::meet(const Call& call, const void* inline_data,
                                        int64_t inline_bytes) {
  const int ranks = transport_.size();
  std::vector<Card> cards(static_cast<size_t>(ranks));
  Card& mine = cards[static_cast<size_t>(transport_.rank())];
  mine.call = call;
  if (inline_bytes > 0)
    std::memcpy(mine.data.data(), inline_data, static_cast<size_t>(inline_bytes));
  std::vector<RequestPtr> requests;
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer == transport_.rank()) continue;
    requests.push_back(
        transport_.start_receive(peer, &cards[static_cast<size_t>(peer)], sizeof(Card)));
    requests.push_back(transport_.start_send(peer, &mine, sizeof(Card)));
  }
  waiter_.complete(requests);
  for (int peer = 0; peer < ranks; ++peer)
    require_same_call(call, transport_.rank(), cards[static_cast<size_t>(peer)].call, peer);
  return cards;
}

void HostCollectives::add_exchange(std::vector<RequestPtr>& requests, int peer, Buffer out,
                                   Buffer in) {
  if (in.count > 0) requests.push_back(transport_.start_receive(peer, in.data, in.bytes()));
  if (out.count > 0) requests.push_back(transport_.start_send(peer, out.data, out.bytes()));
}

void HostCollectives::barrier() { meet({.collective = Collective::barrier}); }

void HostCollectives::all_reduce(Buffer inout, Reduce op) {
  const Call call{Collective::all_reduce, op, inout.dtype, -1, inout.count};
  if (inout.bytes() <= Card::kInline) {
    const std::vector<Card> cards = meet(call, inout.data, inout.bytes());
    std::vector<const void*> parts;
    for (const Card& card : cards) parts.push_back(card.data.data());
    reduce_in_order(inout, parts, op);
    return;
  }
  meet(call);
  const int64_t piece = kPieceBytes / core::size_bytes(inout.dtype);
  for (int64_t first = 0; first < inout.count; first += piece)
    all_reduce_piece(part(inout, first, std::min(piece, inout.count - first)), op);
}

// Each rank reduces its slice of the piece, then all share their slices.
void HostCollectives::all_reduce_piece(Buffer piece, Reduce op) {
  const int ranks = transport_.size(), rank = transport_.rank();
  const Buffer mine = slice(piece, rank, ranks);
  scratch_.resize(static_cast<size_t>(mine.bytes() * (ranks - 1)));
  std::vector<const void*> parts(static_cast<size_t>(ranks), mine.data);
  std::vector<RequestPtr> requests;
  std::byte* next = scratch_.data();
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer == rank) continue;
    parts[static_cast<size_t>(peer)] = next;
    add_exchange(requests, peer, slice(piece, peer, ranks), {next, mine.count, mine.dtype});
    next += mine.bytes();
  }
  waiter_.complete(requests);
  reduce_in_order(mine, parts, op);
  share_slices(piece);
}

// All-gather in place: rank r owns slice r.
void HostCollectives::share_slices(Buffer whole) {
  const int ranks = transport_.size(), rank = transport_.rank();
  std::vector<RequestPtr> requests;
  for (int peer = 0; peer < ranks; ++peer)
    if (peer != rank)
      add_exchange(requests, peer, slice(whole, rank, ranks), slice(whole, peer, ranks));
  waiter_.complete(requests);
}

void HostCollectives::all_gather(Buffer in, Buffer out) {
  const Call call{Collective::all_gather, Reduce::sum, in.dtype, -1, in.count};
  const int ranks = transport_.size(), rank = transport_.rank();
  if (in.bytes() <= Card::kInline) {
    const std::vector<Card> cards = meet(call, in.data, in.bytes());
    for (int peer = 0; peer < ranks; ++peer)
      if (in.count > 0)
        std::memcpy(part(out, peer * in.count, in.count).data,
                    cards[static_cast<size_t>(peer)].data.data(), static_cast<size_t>(in.bytes()));
    return;
  }
  meet(call);
  copy(in, part(out, rank * in.count, in.count));
  share_slices(out);
}

void HostCollectives::reduce_scatter(Buffer in, Buffer out, Reduce op) {
  meet({Collective::reduce_scatter, op, in.dtype, -1, in.count});
  const int ranks = transport_.size(), rank = transport_.rank();
  const int64_t piece = std::max<int64_t>(1, kPieceBytes / core::size_bytes(in.dtype) / ranks);
  for (int64_t first = 0; first < out.count; first += piece) {
    const int64_t count = std::min(piece, out.count - first);
    const auto segment = [&](int peer) { return part(in, peer * out.count + first, count); };
    const int64_t bytes = segment(rank).bytes();
    scratch_.resize(static_cast<size_t>(bytes * (ranks - 1)));
    std::vector<const void*> parts(static_cast<size_t>(ranks), segment(rank).data);
    std::vector<RequestPtr> requests;
    std::byte* next = scratch_.data();
    for (int peer = 0; peer < ranks; ++peer) {
      if (peer == rank) continue;
      parts[static_cast<size_t>(peer)] = next;
      add_exchange(requests, peer, segment(peer), {next, count, in.dtype});
      next += bytes;
    }
    waiter_.complete(requests);
    reduce_in_order(part(out, first, count), parts, op);
  }
}

void HostCollectives::broadcast(Buffer inout, int root) {
  meet({Collective::broadcast, Reduce::sum, inout.dtype, root, inout.count});
  const int ranks = transport_.size(), rank = transport_.rank();
  const bool small = inout.bytes() <= kSmallBroadcast;
  const Buffer nothing{nullptr, 0, inout.dtype};
  std::vector<RequestPtr> requests;
  if (rank == root) {
    for (int peer = 0; peer < ranks; ++peer)
      if (peer != root)
        add_exchange(requests, peer, small ? inout : slice(inout, peer, ranks), nothing);
  } else {
    add_exchange(requests, root, nothing, small ? inout : slice(inout, rank, ranks));
  }
  waiter_.complete(requests);
  // The root sends each rank one slice only; the ranks pass them on.
  if (!small) share_slices(inout);
}

void HostCollectives::all_to_all(Buffer in, Buffer out) {
  meet({Collective::all_to_all, Reduce::sum, in.dtype, -1, in.count});
  const int ranks = transport_.size(), rank = transport_.rank();
  const int64_t count = in.count / ranks;
  std::vector<RequestPtr> requests;
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer == rank) continue;
    add_exchange(requests, peer, part(in, peer * count, count), part(out, peer * count, count));
  }
  copy(part(in, rank * count, count), part(out, rank * count, count));
  waiter_.complete(requests);
}

std::vector<std::array<int, 2>> HostCollectives::gather_colors(int color, int key) {
  const std::array<int, 2> mine{color, key};
  std::vector<std::array<int, 2>> all;
  for (const Card& card : meet({.collective = Collective::split}, mine.data(), sizeof(mine))) {
    std::array<int, 2> theirs;
    std::memcpy(theirs.data(), card.data.data(), sizeof(theirs));
    all.push_back(theirs);
  }
  return all;
}

}  // namespace vitrail::comm
