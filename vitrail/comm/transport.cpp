#include "vitrail/comm/transport.h"

#include <cmath>
#include <cstdlib>
#include <set>

#include <fmt/ranges.h>

namespace vitrail::comm {

void Waiter::check(const std::vector<RequestPtr>& requests) const {
  VT_REQUIRE(CommError, !aborted_.load(), "[comm] the group was aborted");
  if (std::chrono::steady_clock::now() < deadline()) return;
  std::set<int> peers;
  for (const RequestPtr& request : requests)
    if (!request->done) peers.insert(request->peer);
  core::fail<TimeoutError>(
      "[comm] rank {} waited {:.6g} s (VITRAIL_COMM_TIMEOUT_S) for rank {}, which did not take "
      "part",
      transport_.rank(), timeout_.count(), fmt::join(peers, ", "));
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
