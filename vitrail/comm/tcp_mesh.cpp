// How the ranks find each other: everyone says hello to rank 0, which tells everyone where the
// others listen; then each connects to the ranks below it.

#include <cstring>
#include <string_view>

#include <fmt/ranges.h>

#include "vitrail/comm/rendezvous.h"
#include "vitrail/comm/tcp.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

constexpr uint32_t kMagic = 0x31525456;  // "VTR1"
constexpr double kHelloSeconds =
    10;  // a stranger that connects and says nothing holds the door this long
constexpr size_t kTokenBytes = 320;  // a job token and the suffixes of nested splits
constexpr double kTimeout = 300;

/// Of fixed size: what a stranger sends cannot make this process allocate.
struct Hello {
  uint32_t magic = kMagic;
  int32_t context = 0, rank = 0, size = 0, port = 0;
  char token[kTokenBytes] = {};
};

struct PeerEntry {
  char address[64] = {};  // empty: at rank 0's address
  int32_t port = 0;
};

enum class Answer : uint8_t { welcome, wrong_token, wrong_size, wrong_rank };

const char* explain(Answer answer) {
  switch (answer) {
    case Answer::welcome:
      return "welcome";
    case Answer::wrong_token:
      return "it has another job token (VITRAIL_JOB_TOKEN)";
    case Answer::wrong_size:
      return "it counts another number of ranks";
    case Answer::wrong_rank:
      return "that rank is there already, or out of range";
  }
  return "it speaks another protocol";
}

Hello hello_of(int rank, const TcpPeers& peers, int context, int port) {
  Hello hello;
  hello.context = context;
  hello.rank = rank;
  hello.size = static_cast<int32_t>(peers.sockets.size());
  hello.port = port;
  VT_REQUIRE(CommError, peers.token.size() < kTokenBytes,
             "[tcp] groups are split too often, one inside the other");
  std::memcpy(hello.token, peers.token.data(), peers.token.size());
  return hello;
}

/// Compares all bytes whatever they are, so that the time tells nothing about the token.
bool same_token(const Hello& hello, const std::string& token) {
  unsigned difference = 0;
  for (size_t i = 0; i < kTokenBytes; ++i)
    difference |= static_cast<unsigned char>(hello.token[i]) ^
                  static_cast<unsigned char>(i < token.size() ? token[i] : 0);
  return difference == 0;
}

Answer judge(const Hello& hello, int rank, const TcpPeers& peers, int context) {
  if (hello.magic != kMagic || hello.context != context || !same_token(hello, peers.token))
    return Answer::wrong_token;
  if (hello.size != static_cast<int32_t>(peers.sockets.size())) return Answer::wrong_size;
  const bool expected = hello.rank > rank && hello.rank < hello.size;
  if (!expected || peers.sockets[static_cast<size_t>(hello.rank)].is_open())
    return Answer::wrong_rank;
  return Answer::welcome;
}

/// Takes in every rank above this one. Strangers are turned away and only mentioned if someone
/// stays missing. returns the ports that they listen on, by rank.
std::vector<int> accept_above(int rank, TcpPeers& peers, const Listener& listener, int context,
                              const Deadline& deadline) {
  const int size = static_cast<int>(peers.sockets.size());
  std::vector<int> ports(peers.sockets.size());
  std::string turned_away;
  for (int missing = size - 1 - rank; missing > 0;) {
    Socket socket = listener.accept(deadline);
    if (!socket.is_open()) {
      std::vector<int> absent;
      for (int peer = rank + 1; peer < size; ++peer)
        if (!peers.sockets[static_cast<size_t>(peer)].is_open()) absent.push_back(peer);
      core::fail<core::CommError>(
          "[tcp] rank {} of {} waited on port {} but rank {} did not come in time{}", rank, size,
          listener.port, fmt::join(absent, ", "), turned_away);
    }
    Hello hello;
    if (!socket.read(&hello, sizeof(hello), deadline.within(kHelloSeconds))) continue;
    const Answer answer = judge(hello, rank, peers, context);
    const bool told = socket.write(&answer, sizeof(answer), deadline.within(kHelloSeconds));
    if (answer != Answer::welcome)
      turned_away =
          fmt::format("; one from {} was turned away: {}", socket.peer_address(), explain(answer));
    if (answer != Answer::welcome || !told) continue;
    const auto peer = static_cast<size_t>(hello.rank);
    ports[peer] = hello.port;
    peers.addresses[peer] = socket.peer_address();
    peers.sockets[peer] = std::move(socket);
    --missing;
  }
  return ports;
}

Socket say_hello(const std::string& address, int port, int to, const Hello& hello,
                 const Deadline& deadline) {
  std::string reason = "no answer";
  Socket socket = connect_to(address, port, deadline, reason);
  VT_REQUIRE(CommError, socket.is_open() && socket.write(&hello, sizeof(hello), deadline),
             "[tcp] rank {} cannot reach rank {} at {} port {}: {}", hello.rank, to, address, port,
             reason);
  return socket;
}

void await_welcome(const Socket& socket, int rank, int from, const Deadline& deadline) {
  Answer answer{};
  VT_REQUIRE(CommError, socket.read(&answer, sizeof(answer), deadline),
             "[tcp] rank {} reached rank {} but got no answer; is another program on that port?",
             rank, from);
  VT_REQUIRE(CommError, answer == Answer::welcome, "[tcp] rank {} was turned away by rank {}: {}",
             rank, from, explain(answer));
}

/// Rank 0's table of addresses, told to all.
void tell_table(const TcpPeers& peers, const std::vector<int>& ports, const Deadline& deadline) {
  std::vector<PeerEntry> table(peers.sockets.size());
  for (size_t peer = 1; peer < table.size(); ++peer) {
    // A rank on rank 0's own host may have come by loopback; the others reach it where they reach
    // rank 0.
    if (!is_loopback(peers.addresses[peer]))
      peers.addresses[peer].copy(table[peer].address, sizeof(PeerEntry::address) - 1);
    table[peer].port = ports[peer];
  }
  for (size_t peer = 1; peer < table.size(); ++peer)
    VT_REQUIRE(CommError,
               peers.sockets[peer].write(table.data(), table.size() * sizeof(PeerEntry), deadline),
               "[tcp] rank {} left during the rendezvous", peer);
}

std::vector<int> hear_table(int rank, TcpPeers& peers, const Deadline& deadline) {
  std::vector<PeerEntry> table(peers.sockets.size());
  VT_REQUIRE(
      CommError, peers.sockets[0].read(table.data(), table.size() * sizeof(PeerEntry), deadline),
      "[tcp] rank {} waited for all ranks to come, but rank 0 left or some rank is missing", rank);
  std::vector<int> ports(table.size());
  peers.addresses[0] = peers.sockets[0].peer_address();
  for (size_t peer = 1; peer < table.size(); ++peer) {
    table[peer].address[sizeof(PeerEntry::address) - 1] = '\0';
    peers.addresses[peer] =
        table[peer].address[0] == '\0' ? peers.addresses[0] : std::string(table[peer].address);
    ports[peer] = table[peer].port;
  }
  return ports;
}

}  // namespace

void connect_all(int rank, TcpPeers& peers, const std::vector<int>& ports, const Listener& listener,
                 int context, const Deadline& deadline) {
  const Hello hello = hello_of(rank, peers, context, listener.port);
  std::vector<int> called;
  for (int peer = 0; peer < rank; ++peer) {
    const auto index = static_cast<size_t>(peer);
    if (peers.sockets[index].is_open()) continue;
    peers.sockets[index] = say_hello(peers.addresses[index], ports[index], peer, hello, deadline);
    called.push_back(peer);
  }
  // Answers are read after this rank has answered those above, or all would wait for each other.
  accept_above(rank, peers, listener, context, deadline);
  for (const int peer : called)
    await_welcome(peers.sockets[static_cast<size_t>(peer)], rank, peer, deadline);
}

std::unique_ptr<Transport> tcp_transport(int rank, int size, const Rendezvous& rendezvous) {
  const auto timeout =
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(timeout_setting(kTimeout));
  const Deadline deadline{std::chrono::steady_clock::now() + timeout, nullptr};
  TcpPeers peers;
  peers.sockets.resize(static_cast<size_t>(size));
  peers.addresses.resize(static_cast<size_t>(size));
  peers.token = rendezvous.token;
  if (rank == 0) {
    const Listener listener = listen_at(rendezvous.address, rendezvous.port);
    peers.family = listener.family;
    peers.loopback = listener.loopback;
    const std::vector<int> ports = accept_above(0, peers, listener, 0, deadline);
    tell_table(peers, ports, deadline);
    return std::make_unique<TcpTransport>(rank, std::move(peers));
  }
  // The own door opens before the hello that announces it. Which family is only known once rank 0
  // is reached.
  std::string reason = "no answer";
  Socket to_root = connect_to(rendezvous.address, rendezvous.port, deadline, reason);
  VT_REQUIRE(CommError, to_root.is_open(), "[tcp] rank {} cannot reach rank 0 at {} port {}: {}",
             rank, rendezvous.address, rendezvous.port, reason);
  const std::string root_address = to_root.peer_address();
  peers.family = to_root.family();
  peers.loopback = is_loopback(rendezvous.address);
  const Listener listener = listen_like(peers.family, peers.loopback);
  const Hello hello = hello_of(rank, peers, 0, listener.port);
  VT_REQUIRE(CommError, to_root.write(&hello, sizeof(hello), deadline),
             "[tcp] rank {} lost rank 0 at {} during hello", rank, root_address);
  await_welcome(to_root, rank, 0, deadline);
  peers.sockets[0] = std::move(to_root);
  const std::vector<int> ports = hear_table(rank, peers, deadline);
  connect_all(rank, peers, ports, listener, 0, deadline);
  peers.addresses[static_cast<size_t>(rank)].clear();
  return std::make_unique<TcpTransport>(rank, std::move(peers));
}

}  // namespace vitrail::comm
