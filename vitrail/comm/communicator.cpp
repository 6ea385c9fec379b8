#include "vitrail/comm/communicator.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace vitrail::comm {

const char* name(Reduce op) {
  constexpr const char* names[] = {"sum", "average", "max", "min"};
  return names[static_cast<int>(op)];
}

Work::Work(std::function<void()> finish, std::function<void()> give_up)
    : finish_(std::move(finish)),
      give_up_(std::move(give_up)),
      exceptions_at_start_(std::uncaught_exceptions()) {}

Work::Work(Work&& other) noexcept
    : finish_(std::exchange(other.finish_, nullptr)),
      give_up_(std::exchange(other.give_up_, nullptr)),
      exceptions_at_start_(other.exceptions_at_start_) {}

Work& Work::operator=(Work&& other) noexcept {
  if (this == &other) return *this;
  Work finished(std::move(*this));  // its destructor waits for what this held
  finish_ = std::exchange(other.finish_, nullptr);
  give_up_ = std::exchange(other.give_up_, nullptr);
  exceptions_at_start_ = other.exceptions_at_start_;
  return *this;
}

Work::~Work() {
  if (finish_ && give_up_ && std::uncaught_exceptions() > exceptions_at_start_) give_up_();
  // A failure is not lost: the group stays failed, and its next call throws the same error.
  try {
    wait();
  } catch (...) {
  }
}

void Work::wait() {
  if (!finish_) return;
  const std::function<void()> finish = std::move(finish_);
  finish_ = nullptr;
  finish();
}

double sum(Communicator& group, double value) {
  group.all_reduce({&value, 1, core::DType::f64}, Reduce::sum).wait();
  return value;
}

double max(Communicator& group, double value) {
  group.all_reduce({&value, 1, core::DType::f64}, Reduce::max).wait();
  return value;
}

bool all_agree(Communicator& group, bool value) {
  int32_t agreed = value ? 1 : 0;
  group.all_reduce({&agreed, 1, core::DType::i32}, Reduce::min).wait();
  return agreed == 1;
}

std::vector<std::string> gather_strings(Communicator& group, const std::string& mine) {
  const auto ranks = static_cast<size_t>(group.size());
  int64_t length = static_cast<int64_t>(mine.size());
  std::vector<int64_t> lengths(ranks);
  group.all_gather({&length, 1, core::DType::i64}, {lengths.data(), group.size(), core::DType::i64})
      .wait();
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::string padded = mine;
  padded.resize(static_cast<size_t>(longest));
  std::string all(ranks * static_cast<size_t>(longest), '\0');
  group
      .all_gather({padded.data(), longest, core::DType::u8},
                  {all.data(), longest * group.size(), core::DType::u8})
      .wait();
  std::vector<std::string> strings;
  for (size_t rank = 0; rank < ranks; ++rank)
    strings.push_back(
        all.substr(rank * static_cast<size_t>(longest), static_cast<size_t>(lengths[rank])));
  return strings;
}

}  // namespace vitrail::comm
