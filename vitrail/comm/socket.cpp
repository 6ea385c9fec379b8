#include "vitrail/comm/socket.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

/// Waits for `events`; false when the deadline passed.
bool wait_for(int fd, short events, const Deadline& deadline) {
  while (!deadline.passed()) {
    pollfd entry{fd, events, 0};
    if (poll(&entry, 1, 100) > 0) return true;
    if (deadline.check) deadline.check();
  }
  return false;
}

struct Addresses {
  addrinfo* first = nullptr;
  ~Addresses() {
    if (first) freeaddrinfo(first);
  }
};

/// An empty list and the reason when the name is unknown.
void resolve(const std::string& address, int port, Addresses& addresses, std::string& reason) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  const int error =
      getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &addresses.first);
  if (error != 0) reason = gai_strerror(error);
}

int open_socket(int family) {
  return ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void send_at_once(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

sockaddr_storage any_address(int family, bool loopback, int port) {
  sockaddr_storage storage{};
  storage.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET) {
    auto* address = reinterpret_cast<sockaddr_in*>(&storage);
    address->sin_port = htons(static_cast<uint16_t>(port));
    address->sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
  } else {
    auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
    address->sin6_port = htons(static_cast<uint16_t>(port));
    address->sin6_addr = loopback ? in6addr_loopback : in6addr_any;
  }
  return storage;
}

socklen_t length_of(int family) {
  return family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

Listener listen_on(const sockaddr_storage& address, bool loopback, const std::string& where) {
  Listener listener{Socket(open_socket(address.ss_family)), address.ss_family, loopback, 0};
  const int fd = listener.socket.fd(), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listening =
      fd >= 0 &&
      bind(fd, reinterpret_cast<const sockaddr*>(&address), length_of(address.ss_family)) == 0 &&
      ::listen(fd, SOMAXCONN) == 0;
  VT_REQUIRE(CommError, listening, "[tcp] cannot listen on {}: {}", where, std::strerror(errno));
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  listener.port =
      ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                       : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port);
  return listener;
}

}  // namespace

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

Deadline Deadline::within(double seconds) const {
  const auto soon = std::chrono::steady_clock::now() +
                    std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                        std::chrono::duration<double>(seconds));
  return {std::min(time, soon), check};
}

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Socket::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool Socket::read(void* data, size_t bytes, const Deadline& deadline) const {
  auto* next = static_cast<char*>(data);
  while (bytes > 0) {
    if (!wait_for(fd_, POLLIN, deadline)) return false;
    const ssize_t got = recv(fd_, next, bytes, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (got < 0) continue;
    next += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool Socket::write(const void* data, size_t bytes, const Deadline& deadline) const {
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    if (!wait_for(fd_, POLLOUT, deadline)) return false;
    const ssize_t sent = ::send(fd_, next, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent < 0) continue;
    next += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

std::string Socket::peer_address() const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  char text[NI_MAXHOST] = {};
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "";
  if (getnameinfo(reinterpret_cast<sockaddr*>(&address), length, text, sizeof(text), nullptr, 0,
                  NI_NUMERICHOST) != 0)
    return "";
  return text;
}

int Socket::family() const {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
  return address.ss_family;
}

Socket Listener::accept(const Deadline& deadline) const {
  while (wait_for(socket.fd(), POLLIN, deadline)) {
    Socket accepted(accept4(socket.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!accepted.is_open()) continue;  // the other end gave up in between
    send_at_once(accepted.fd());
    return accepted;
  }
  return {};
}

Listener listen_at(const std::string& address, int port) {
  Addresses addresses;
  std::string reason;
  resolve(address, port, addresses, reason);
  VT_REQUIRE(CommError, addresses.first != nullptr, "[tcp] MASTER_ADDR {} cannot be resolved: {}",
             address, reason);
  const bool loopback = is_loopback(address);
  const int family = addresses.first->ai_family;
  return listen_on(
      any_address(family, loopback, port), loopback,
      fmt::format("port {} as rank 0 at {}; choose a free MASTER_PORT", port, address));
}

Listener listen_like(int family, bool loopback) {
  return listen_on(any_address(family, loopback, 0), loopback, "a free port");
}

Socket connect_to(const std::string& address, int port, const Deadline& deadline,
                  std::string& reason) {
  Addresses addresses;
  while (!deadline.passed()) {
    if (!addresses.first) resolve(address, port, addresses, reason);
    for (const addrinfo* entry = addresses.first; entry; entry = entry->ai_next) {
      Socket socket(open_socket(entry->ai_family));
      int error = ::connect(socket.fd(), entry->ai_addr, entry->ai_addrlen) == 0 ? 0 : errno;
      if (error == EINPROGRESS) {
        socklen_t length = sizeof(error);
        if (wait_for(socket.fd(), POLLOUT, deadline.within(5)))
          getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
        else
          error = ETIMEDOUT;
      }
      if (error == 0) {
        send_at_once(socket.fd());
        return socket;
      }
      reason = std::strerror(error);
    }
    if (deadline.check) deadline.check();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return {};
}

}  // namespace vitrail::comm
