#include "vitrail/comm/transport.h"

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <set>

#include <fmt/ranges.h>
#include <time.h>
#include <unistd.h>

#include "vitrail/core/log.h"

namespace vitrail::comm {
namespace {

// A rank that only comes late in its last collective is not complained of. mpirun leaves a second between SIGTERM
// and SIGKILL.
constexpr int64_t kPatienceMs = 250;

std::atomic<int64_t> termination_ms{0};  // when SIGTERM came; 0 = it has not
std::atomic<bool> termination_ends_process{false}, termination_was_told{false};

int64_t now_ms() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
}

}  // namespace

void note_termination(bool ends_process) noexcept {
  if (termination_ms != 0) return;
  termination_ends_process = ends_process;
  termination_ms = now_ms();
}

Termination termination() noexcept {
  if (termination_ms == 0 || now_ms() - termination_ms <= kPatienceMs) return Termination::none;
  return termination_ends_process ? Termination::ends_process : Termination::goes_on;
}

void watch_for_termination() {
  struct sigaction before {};
  if (::sigaction(SIGTERM, nullptr, &before) != 0 || before.sa_handler != SIG_DFL) return;
  struct sigaction action {};
  action.sa_handler = [](int) {
    note_termination(true);
    ::alarm(2);  // whose own action is to end the process
  };
  ::sigaction(SIGTERM, &action, nullptr);
}

std::string Waiter::missing(const std::vector<RequestPtr>& requests) const {
  std::set<int> peers;
  for (const RequestPtr& request : requests)
    if (!request->done) peers.insert(transport_.world_rank(request->peer));
  return fmt::format("{}", fmt::join(peers, ", "));
}

void Waiter::check(const std::vector<RequestPtr>& requests) const {
  VT_REQUIRE(CommError, !aborted_.load(), "[comm] the group was aborted");
  if (const Termination told = termination(); told != Termination::none && !requests.empty()) {
    const std::string text =
        fmt::format("[comm] rank {} was told to end (SIGTERM) while it waits for rank {}",
                    transport_.world_rank(transport_.rank()), missing(requests));
    if (told == Termination::ends_process) throw core::CommError(text);
    if (!termination_was_told.exchange(true)) core::log_warning("{} (in {} #{})", text, what_, number_);
  }
  if (std::chrono::steady_clock::now() < deadline()) return;
  core::fail<TimeoutError>(
      "[comm] rank {} waited {:.6g} s (VITRAIL_COMM_TIMEOUT_S) for rank {}, which did not take "
      "part",
      transport_.world_rank(transport_.rank()), timeout_.count(), missing(requests));
}

void Waiter::complete(const std::vector<RequestPtr>& requests) {
  constexpr std::chrono::microseconds kPatience(500);
  for (const RequestPtr& request : requests)
    while (!request->done) {
      transport_.progress(kPatience);
      if (!request->done) check(requests);
    }
}

std::chrono::duration<double> timeout_setting(double otherwise) {
  const char* text = std::getenv("VITRAIL_COMM_TIMEOUT_S");
  if (text == nullptr || *text == '\0') return std::chrono::duration<double>(otherwise);
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  VT_REQUIRE(CommError, *end == '\0' && std::isfinite(seconds) && seconds > 0 && seconds < 1e8,
             "[comm] VITRAIL_COMM_TIMEOUT_S must be a positive number of seconds but got '{}'",
             text);
  return std::chrono::duration<double>(seconds);
}

}  // namespace vitrail::comm
