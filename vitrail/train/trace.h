#pragma once
/// Where the time of a step goes: forward and backward of every block, gathers, reductions, optimizer, as a timeline that
/// chrome://tracing and ui.perfetto.dev show.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::train {

/// Records while it lives. Make it after the engine, whose waits then come before the ranges of blocks.
class Trace {
 public:
  /// Waits for the device and for all ranks, so that their times have one origin.
  Trace(models::Model& model, at::Device device, comm::Communicator& world);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// What this rank has done so far; waits for the device.
  std::vector<parallel::TimedRange> ranges() const { return timeline_.ranges(); }
  at::Device device() const { return timeline_.device(); }

 private:
  class BlockRanges;
  parallel::Timeline timeline_;
  std::unique_ptr<parallel::Recording> recording_;
  std::vector<std::unique_ptr<BlockRanges>> blocks_;
};

/// Milliseconds of a rank's ranges in which it exchanges data and computes nothing beside it: exchanges that run while
/// no range of the compute stream does, and those that this stream carries itself or waits for.
double exposed_ms(const std::vector<parallel::TimedRange>& ranges);

/// Chrome's JSON of one rank: an array's elements, without its brackets.
std::string to_chrome_events(const std::vector<parallel::TimedRange>& ranges, int rank,
                             const std::string& device);
/// Gathers the ranges of all ranks; rank 0 writes the file, whole or not at all. Every rank calls it.
void write_trace(const std::string& path, const Trace& trace, comm::Communicator& world);

}  // namespace vitrail::train
