#include "vitrail/parallel/timeline.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>

namespace vitrail::parallel {

namespace {

constexpr size_t kGpus = 64;  // of one host

thread_local Timeline* of_thread = nullptr;
// Backward on a GPU runs on a thread of autograd's own.
std::array<std::atomic<Timeline*>, kGpus> of_gpu{};

size_t index_of(at::Device device) {
  return device.is_cpu() ? kGpus : static_cast<size_t>(std::max<int>(0, device.index()));
}

bool contains(const std::vector<Lane>& lanes, Lane lane) {
  return std::find(lanes.begin(), lanes.end(), lane) != lanes.end();
}

}  // namespace

const char* name(Lane lane) {
  constexpr const char* names[] = {"host",     "compute", "gather",  "reduce",
                                   "exchange", "copy",    "blocking"};
  return names[static_cast<size_t>(lane)];
}

Timeline::Timeline(at::Device device)
    : device_(device), origin_(device, true), host_origin_(at::kCPU, true) {
  synchronize(device);
  origin_.record(current_stream(device));
  host_origin_.record(nullptr);
}

size_t Timeline::begin(std::string name, Lane lane, void* stream) {
  const at::Device clock = lane == Lane::host ? at::Device(at::kCPU) : device_;
  entries_.push_back({std::move(name), lane, Event(clock, true), Event(clock, true)});
  entries_.back().begin.record(lane == Lane::host ? nullptr : stream);
  return entries_.size() - 1;
}

void Timeline::end(size_t number, void* stream) {
  Entry& entry = entries_[number];
  entry.end.record(entry.lane == Lane::host ? nullptr : stream);
  entry.ended = true;
}

std::vector<TimedRange> Timeline::ranges() const {
  synchronize(device_);
  std::vector<TimedRange> ranges;
  for (const Entry& entry : entries_) {
    if (!entry.ended) continue;
    const Event& origin = entry.lane == Lane::host ? host_origin_ : origin_;
    ranges.push_back(
        {entry.name, entry.lane, entry.begin.ms_since(origin), entry.end.ms_since(origin)});
  }
  std::stable_sort(ranges.begin(), ranges.end(),
                   [](const auto& a, const auto& b) { return a.start_ms < b.start_ms; });
  return ranges;
}

Timeline* timeline(at::Device device) {
  const size_t index = index_of(device);
  return index < kGpus ? of_gpu[index].load(std::memory_order_relaxed) : of_thread;
}

Recording::Recording(Timeline& timeline) : device_(timeline.device()) {
  const size_t index = index_of(device_);
  if (index < kGpus)
    of_gpu[index] = &timeline;
  else
    of_thread = &timeline;
}

Recording::~Recording() {
  const size_t index = index_of(device_);
  if (index < kGpus)
    of_gpu[index] = nullptr;
  else
    of_thread = nullptr;
}

double uncovered_ms(const std::vector<TimedRange>& ranges, const std::vector<Lane>& busy,
                    const std::vector<Lane>& beside, const std::vector<Lane>& always) {
  // Change of the number of open ranges of each kind, at each moment.
  const std::array<const std::vector<Lane>*, 3> kinds{&busy, &beside, &always};
  std::map<double, std::array<int, 3>> changes;
  for (const TimedRange& range : ranges)
    for (size_t kind = 0; kind < kinds.size(); ++kind) {
      if (!contains(*kinds[kind], range.lane)) continue;
      ++changes[range.start_ms][kind];
      --changes[range.end_ms][kind];
    }
  double total = 0, since = 0;
  std::array<int, 3> open{};
  for (const auto& [time, change] : changes) {
    if ((open[0] > 0 && open[1] == 0) || open[2] > 0) total += time - since;
    since = time;
    for (size_t kind = 0; kind < open.size(); ++kind) open[kind] += change[kind];
  }
  return total;
}

}  // namespace vitrail::parallel
