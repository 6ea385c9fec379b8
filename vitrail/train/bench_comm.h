#pragma once
/// Times of the collectives of a group by size, and the line latency + bytes / bandwidth through them.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/train/plan_machine.h"

namespace vitrail::train {

struct CommBenchOptions {
  std::vector<std::string> kinds{"all_reduce", "all_gather",   "reduce_scatter",
                                 "all_to_all", "send_receive", "broadcast"};
  std::vector<int64_t> sizes;  // bytes of the whole buffer; empty: 4 KiB, 16 KiB ... 512 MiB
  std::vector<std::string> dtypes{"f32", "bf16"};
  double seconds = 0.2;  // timed for each point, at least three calls
  int64_t most_calls = 1000;
};

struct CommPoint {
  std::string kind, dtype;
  int64_t bytes = 0;    // of the whole buffer
  double us = 0;        // median of a call, on the slowest rank
  double bus_gb_s = 0;  // wire bytes (plan_machine.h) / time
};

struct CommFit {
  std::string kind, dtype;
  double latency_us = 0, bus_gb_s = 0;
  double worst_ratio = 1;  // of a measured time to the line, or the reverse
};

struct CommBench {
  std::string backend, device;
  int64_t ranks = 1, hosts = 1;
  std::vector<CommPoint> points;
  std::vector<CommFit> fits;
};

/// Sizes from `first` to `last` in steps of 4.
std::vector<int64_t> comm_sizes(int64_t first = 4096, int64_t last = int64_t{512} << 20);

/// Every rank calls it with the same options; every rank gets the same result. `group` communicates over memory of
/// `device`, `host` over that of the host; both have the same ranks.
/// throws ConfigError for unknown kinds, types and sizes.
CommBench bench_comm(comm::Communicator& group, comm::Communicator& host, at::Device device,
                     const std::string& host_name, const CommBenchOptions& options);

/// Least squares of the relative error over (wire bytes, microseconds), both coefficients at least 0.
CommFit fit_line(const std::vector<CommPoint>& points, int64_t ranks);

std::string describe(const CommBench& bench);
std::string to_json(const CommBench& bench);
/// Puts the fits (of the first type) into a machine's table in the place of older ones of the same group.
void update(Machine& machine, const CommBench& bench, const std::string& date);

}  // namespace vitrail::train
