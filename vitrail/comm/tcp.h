#pragma once
/// A full mesh of TCP connections as a Transport. Correct rather than fast: GPU traffic goes
/// through NCCL.
///
/// Wire       a message is its length (8 bytes) and its bytes; the receiver knows the length
/// beforehand and refuses any
///            other, so nothing is allocated by what arrives.

#include <deque>
#include <string>
#include <vector>

#include "vitrail/comm/socket.h"
#include "vitrail/comm/transport.h"

namespace vitrail::comm {

/// How the others are reached, for the groups split off later.
struct TcpPeers {
  std::vector<Socket> sockets;         // by rank; own entry closed
  std::vector<std::string> addresses;  // numeric, by rank; own entry empty
  int family = 0;
  bool loopback = false;
  std::string token;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(int rank, TcpPeers peers);
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(links_.size()); }
  const char* backend() const override { return "tcp"; }
  RequestPtr start_send(int to, const void* data, int64_t bytes) override;
  RequestPtr start_receive(int from, void* data, int64_t bytes) override;
  void progress(std::chrono::microseconds patience) override;
  std::unique_ptr<Transport> split(const std::vector<int>& members, int serial,
                                   Waiter& waiter) override;
  void close(const std::string& reason) noexcept override;

 private:
  struct Flow {  // one message, one direction
    char* data = nullptr;
    int64_t bytes = 0, moved = 0;  // moved counts the length prefix first
    uint64_t prefix = 0;
    RequestPtr request;
  };
  struct Link {
    Socket socket;
    std::deque<Flow> out, in;
  };
  void push(int peer, Link& link);
  void pull(int peer, Link& link);
  static std::string last_words(const Link& link, const std::string& otherwise);

  const int rank_;
  std::vector<Link> links_;
  TcpPeers peers_;  // its sockets have moved to links_
};

/// Connects `rank` with all ranks listed, each of which listens at addresses[r]:ports[r] and knows
/// `token`. sockets already open stay. throws CommError naming the rank that did not come.
void connect_all(int rank, TcpPeers& peers, const std::vector<int>& ports, const Listener& listener,
                 int context, const Deadline& deadline);

}  // namespace vitrail::comm
