#pragma once
/// TCP sockets with deadlines. All are non-blocking; every wait is bounded and calls `check`, which
/// may throw.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace vitrail::comm {

struct Deadline {
  std::chrono::steady_clock::time_point time;
  std::function<void()> check;  // may be empty; called several times a second while waiting
  bool passed() const { return std::chrono::steady_clock::now() >= time; }
  /// The same check, at most `seconds` from now.
  Deadline within(double seconds) const;
};

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { close(); }
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void close() noexcept;

  /// false when the peer closed, failed or the deadline passed.
  bool read(void* data, size_t bytes, const Deadline& deadline) const;
  bool write(const void* data, size_t bytes, const Deadline& deadline) const;
  /// Numeric address of the other end, "" when it is not connected.
  std::string peer_address() const;
  /// AF_INET or AF_INET6.
  int family() const;

 private:
  int fd_ = -1;
};

/// By its text: a host name may resolve to loopback on its own host and to an interface elsewhere.
bool is_loopback(const std::string& address);

struct Listener {
  Socket socket;
  int family = 0;         // AF_INET or AF_INET6
  bool loopback = false;  // takes connections from this host only
  int port = 0;
  /// A closed socket when the deadline passed.
  Socket accept(const Deadline& deadline) const;
};

/// Listens on rank 0's address: on loopback only if it is one, else on every interface of its
/// family. throws CommError naming address, port and reason.
Listener listen_at(const std::string& address, int port);
/// Listens on a port that the system chooses.
Listener listen_like(int family, bool loopback);
/// Tries until the deadline, since the other end may come up later; a closed socket after that, the
/// reason in `reason`.
Socket connect_to(const std::string& address, int port, const Deadline& deadline,
                  std::string& reason);

}  // namespace vitrail::comm
