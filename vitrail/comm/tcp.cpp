#include "vitrail/comm/tcp.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>

#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

constexpr int64_t kPrefix = sizeof(uint64_t);
// In place of a message's length: the sender has failed, and says why in as many bytes as follow.
constexpr uint64_t kFarewell = ~uint64_t{0};
constexpr size_t kReasonBytes = 400;

[[noreturn]] void lost(int rank, int peer, const std::string& reason) {
  core::fail<core::CommError>("[tcp] rank {} lost rank {}: {}", rank, peer, reason);
}

/// What follows kFarewell; it was sent in one piece with it.
std::string read_reason(int fd) {
  std::string text(kReasonBytes, '\0');
  const ssize_t got = recv(fd, text.data(), text.size(), MSG_DONTWAIT);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32) c = ' ';
  return text;
}

}  // namespace

TcpTransport::TcpTransport(int rank, TcpPeers peers)
    : rank_(rank), links_(peers.sockets.size()), peers_(std::move(peers)) {
  for (size_t peer = 0; peer < links_.size(); ++peer)
    links_[peer].socket = std::move(peers_.sockets[peer]);
}

RequestPtr TcpTransport::start_send(int to, const void* data, int64_t bytes) {
  Link& link = links_[static_cast<size_t>(to)];
  auto request = std::make_shared<Request>(to);
  link.out.push_back({const_cast<char*>(static_cast<const char*>(data)), bytes, 0,
                      static_cast<uint64_t>(bytes), request});
  return request;
}

RequestPtr TcpTransport::start_receive(int from, void* data, int64_t bytes) {
  auto request = std::make_shared<Request>(from);
  links_[static_cast<size_t>(from)].in.push_back({static_cast<char*>(data), bytes, 0, 0, request});
  return request;
}

void TcpTransport::push(int peer, Link& link) {
  while (!link.out.empty()) {
    Flow& flow = link.out.front();
    iovec pieces[2] = {};
    int count = 0;
    if (flow.moved < kPrefix)
      pieces[count++] = {reinterpret_cast<char*>(&flow.prefix) + flow.moved,
                         static_cast<size_t>(kPrefix - flow.moved)};
    const int64_t done = std::max<int64_t>(0, flow.moved - kPrefix);
    if (flow.bytes > done)
      pieces[count++] = {flow.data + done, static_cast<size_t>(flow.bytes - done)};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = static_cast<size_t>(count);
    const ssize_t sent = sendmsg(link.socket.fd(), &message, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) lost(world_rank(rank_), world_rank(peer), last_words(link, std::strerror(errno)));
    flow.moved += sent;
    if (flow.moved < kPrefix + flow.bytes) return;
    flow.request->done = true;
    link.out.pop_front();
  }
}

void TcpTransport::pull(int peer, Link& link) {
  while (!link.in.empty()) {
    Flow& flow = link.in.front();
    const bool in_prefix = flow.moved < kPrefix;
    char* target = in_prefix ? reinterpret_cast<char*>(&flow.prefix) + flow.moved
                             : flow.data + (flow.moved - kPrefix);
    const int64_t wanted = (in_prefix ? kPrefix : kPrefix + flow.bytes) - flow.moved;
    const ssize_t got = recv(link.socket.fd(), target, static_cast<size_t>(wanted), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got == 0) lost(world_rank(rank_), world_rank(peer), "it closed the connection");
    if (got < 0) lost(world_rank(rank_), world_rank(peer), std::strerror(errno));
    flow.moved += got;
    if (flow.moved < kPrefix) continue;
    if (flow.prefix == kFarewell)
      lost(world_rank(rank_), world_rank(peer), "it failed: " + read_reason(link.socket.fd()));
    VT_REQUIRE(CommError, flow.prefix == static_cast<uint64_t>(flow.bytes),
               "[tcp] rank {} sent {} bytes where rank {} expects {}", peer, flow.prefix, rank_,
               flow.bytes);
    if (flow.moved < kPrefix + flow.bytes) continue;
    flow.request->done = true;
    link.in.pop_front();
  }
}

void TcpTransport::progress(std::chrono::microseconds patience) {
  std::vector<pollfd> entries;
  std::vector<int> peers;
  for (int peer = 0; peer < size(); ++peer) {
    const Link& link = links_[static_cast<size_t>(peer)];
    short events = 0;
    if (!link.in.empty()) events |= POLLIN;
    if (!link.out.empty()) events |= POLLOUT;
    // A closed connection of a peer that nothing is expected from is no failure: it may have
    // finished first.
    if (events == 0) continue;
    if (!link.socket.is_open())
      lost(world_rank(rank_), world_rank(peer), "the connection is closed");
    entries.push_back({link.socket.fd(), events, 0});
    peers.push_back(peer);
  }
  if (entries.empty()) return;
  const timespec wait{0, patience.count() * 1000};
  if (ppoll(entries.data(), entries.size(), &wait, nullptr) <= 0) return;
  for (size_t i = 0; i < entries.size(); ++i) {
    Link& link = links_[static_cast<size_t>(peers[i])];
    if (entries[i].revents & (POLLOUT | POLLERR)) push(peers[i], link);
    if (entries[i].revents & (POLLIN | POLLHUP | POLLERR)) pull(peers[i], link);
  }
}

std::unique_ptr<Transport> TcpTransport::split(const std::vector<int>& members, int serial,
                                               Waiter& waiter) {
  const Listener listener = listen_like(peers_.family, peers_.loopback);
  const auto index_of_self = std::find(members.begin(), members.end(), rank_) - members.begin();
  std::vector<int> ports(members.size());
  ports[static_cast<size_t>(index_of_self)] = listener.port;
  std::vector<RequestPtr> requests;
  TcpPeers child{{},
                 {},
                 peers_.family,
                 peers_.loopback,
                 fmt::format("{}/{}.{}", peers_.token, serial, members.front())};
  for (size_t i = 0; i < members.size(); ++i) {
    child.addresses.push_back(peers_.addresses[static_cast<size_t>(members[i])]);
    if (members[i] == rank_) continue;
    requests.push_back(start_receive(members[i], &ports[i], sizeof(int)));
    requests.push_back(start_send(members[i], &listener.port, sizeof(int)));
  }
  waiter.complete(requests);
  child.sockets.resize(members.size());
  connect_all(static_cast<int>(index_of_self), child, ports, listener, serial + 1,
              {waiter.deadline(), [&waiter] { waiter.check({}); }});
  return std::make_unique<TcpTransport>(static_cast<int>(index_of_self), std::move(child));
}

/// Why the connection broke, as its peer put it, if it did.
std::string TcpTransport::last_words(const Link& link, const std::string& otherwise) {
  const bool between_messages = link.in.empty() || link.in.front().moved == 0;
  uint64_t prefix = 0;
  if (!between_messages ||
      recv(link.socket.fd(), &prefix, sizeof prefix, MSG_DONTWAIT) != kPrefix ||
      prefix != kFarewell)
    return otherwise;
  return "it failed: " + read_reason(link.socket.fd());
}

void TcpTransport::close(const std::string& reason) noexcept {
  for (Link& link : links_) {
    const bool between_messages = link.out.empty() || link.out.front().moved == 0;
    if (link.socket.is_open() && between_messages && !reason.empty()) {
      uint64_t prefix = kFarewell;
      iovec pieces[2] = {{&prefix, sizeof prefix},
                         {const_cast<char*>(reason.data()), std::min(reason.size(), kReasonBytes)}};
      msghdr message{};
      message.msg_iov = pieces;
      message.msg_iovlen = 2;
      // Best effort: a peer that cannot be told sees the connection close.
      [[maybe_unused]] const ssize_t sent =
          sendmsg(link.socket.fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    link.socket.close();
  }
}

}  // namespace vitrail::comm
