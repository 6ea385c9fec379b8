#pragma once
/// When each part of a step ran: on the streams of a device by events, on the host by the clock.
///
/// Whoever queues part of a step puts a TimedScope around it, behind the waits of its stream for others: a range starts
/// when the stream comes to it. Without a Recording that costs a look at one pointer.
/// Threads    of one rank one after the other. Ranks that are threads have a recording each.

#include <cstddef>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "vitrail/parallel/device.h"

namespace vitrail::parallel {

/// host: what the host does, by its clock; the others: work on a stream of the device. blocking: exchanges that the
/// compute stream carries itself or waits for, within its ranges; nothing is computed meanwhile.
enum class Lane { host, compute, gather, reduce, exchange, copy, blocking };
const char* name(Lane lane);

struct TimedRange {
  std::string name;  // "forward blocks.3", "gather blocks.4"
  Lane lane = Lane::compute;
  double start_ms = 0, end_ms = 0;  // since the timeline began
};

class Timeline {
 public:
  /// Waits for the device.
  explicit Timeline(at::Device device);

  at::Device device() const { return device_; }
  /// Returns the number for end(). `stream`: on which the work is queued.
  size_t begin(std::string name, Lane lane, void* stream);
  void end(size_t number, void* stream);
  /// All ranges that have ended so far, by their start; waits for the device.
  std::vector<TimedRange> ranges() const;

 private:
  struct Entry {
    std::string name;
    Lane lane;
    Event begin, end;
    bool ended = false;
  };
  at::Device device_;
  Event origin_, host_origin_;
  std::vector<Entry> entries_;
};

/// Where this rank's work on `device` is recorded; null: nowhere.
Timeline* timeline(at::Device device);

/// While it lives, `timeline` records: what the calling thread does for the CPU, or any thread for the timeline's GPU.
class Recording {
 public:
  explicit Recording(Timeline& timeline);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  at::Device device_;
};

/// A range from here to the end of the scope.
class TimedScope {
 public:
  TimedScope(at::Device device, Lane lane, void* stream, const char* what,
             const std::string& unit = {})
      : timeline_(timeline(device)), stream_(stream) {
    if (timeline_)
      number_ =
          timeline_->begin(unit.empty() ? std::string(what) : what + (' ' + unit), lane, stream);
  }
  ~TimedScope() {
    if (timeline_) timeline_->end(number_, stream_);
  }
  TimedScope(const TimedScope&) = delete;
  TimedScope& operator=(const TimedScope&) = delete;

 private:
  Timeline* timeline_;
  void* stream_;
  size_t number_ = 0;
};

/// Milliseconds in which ranges of the lanes `busy` run and none of `beside` does, or any of `always` runs.
double uncovered_ms(const std::vector<TimedRange>& ranges, const std::vector<Lane>& busy,
                    const std::vector<Lane>& beside, const std::vector<Lane>& always = {});

}  // namespace vitrail::parallel
