#include "vitrail/parallel/host_weights.h"

#include <utility>

#include "vitrail/parallel/pinned.h"

namespace vitrail::parallel {

HostWeights::HostWeights(int64_t count, std::vector<HostRange> units, at::ScalarType type,
                         at::Device device)
    : device_(device), units_(std::move(units)), published_(pinned_zeros(count, type, device)) {
  for (size_t u = 0; u < units_.size(); ++u) read_.emplace_back(device_);
}

void HostWeights::fetch(int unit, void* destination, void* stream) {
  const HostRange& range = units_.at(static_cast<size_t>(unit));
  const int64_t size = published_.element_size();
  const auto* first = static_cast<const std::byte*>(published_.data_ptr()) + range.offset * size;
  copy_async(device_, destination, first, range.count * size, stream);
  read_[static_cast<size_t>(unit)].record(stream);
}

void HostWeights::wait(int unit) { read_.at(static_cast<size_t>(unit)).synchronize(); }

}  // namespace vitrail::parallel
