#include "vitrail/train/bench_comm.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <fmt/ranges.h>

#include "vitrail/core/dtype.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_timer.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

using comm::Buffer;

struct Type {
  core::DType comm;
  at::ScalarType torch;
};

Type type_of(const std::string& name) {
  if (name == "f32") return {core::DType::f32, at::kFloat};
  if (name == "bf16") return {core::DType::bf16, at::kBFloat16};
  core::fail<core::ConfigError>("[bench] --dtype must be f32 or bf16 but got '{}'", name);
}

/// One collective over buffers of a size: what is called again and again.
class Case {
 public:
  Case(const std::string& kind, const std::string& dtype, int64_t bytes, comm::Communicator& group,
       at::Device device)
      : kind_(kind), group_(group), stream_(parallel::current_stream(device)) {
    const Type type = type_of(dtype);
    const int64_t width = static_cast<int64_t>(core::size_bytes(type.comm)), ranks = group.size();
    count_ = std::max<int64_t>(1, bytes / width / ranks) * ranks;
    const auto options = at::TensorOptions().device(device).dtype(type.torch);
    // Random values: hardware is faster on zeros.
    whole_ = at::randn({count_}, options);
    other_ = at::empty({count_}, options);
    type_ = type.comm;
  }

  void run() {
    const Buffer whole = buffer(whole_, count_), other = buffer(other_, count_);
    const int64_t part = count_ / group_.size();
    const int next = (group_.rank() + 1) % group_.size(),
              before = (group_.rank() + group_.size() - 1) % group_.size();
    if (kind_ == "all_reduce")
      group_.all_reduce(whole, comm::Reduce::average, stream_).wait();
    else if (kind_ == "all_gather")
      group_.all_gather(buffer(whole_, part), other, stream_).wait();
    else if (kind_ == "reduce_scatter")
      group_.reduce_scatter(whole, buffer(other_, part), comm::Reduce::average, stream_).wait();
    else if (kind_ == "all_to_all")
      group_.all_to_all(whole, other, stream_).wait();
    else if (kind_ == "send_receive")
      group_.send_receive(whole, next, other, before, stream_).wait();
    else
      group_.broadcast(whole, 0, stream_).wait();
  }
  int64_t bytes() const { return count_ * static_cast<int64_t>(core::size_bytes(type_)); }

 private:
  Buffer buffer(const at::Tensor& tensor, int64_t count) const {
    return {tensor.data_ptr(), count, type_};
  }

  std::string kind_;
  comm::Communicator& group_;
  comm::Stream stream_;
  core::DType type_ = core::DType::f32;
  int64_t count_ = 0;
  at::Tensor whole_, other_;
};

/// Median microseconds of a call on the slowest rank. All ranks agree on how many calls there are.
double time_case(Case& one, comm::Communicator& host, at::Device device,
                 const CommBenchOptions& options) {
  using Clock = std::chrono::steady_clock;
  const auto timed = [&](int64_t calls) {
    parallel::synchronize(device);
    host.barrier();
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) one.run();
    parallel::synchronize(device);
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
  };
  timed(1);
  const double first = comm::max(host, timed(1));
  const auto calls = static_cast<int64_t>(options.seconds / 5 / std::max(first, 1e-7));
  const int64_t each = std::clamp<int64_t>(calls, 1, std::max<int64_t>(1, options.most_calls / 5));
  std::vector<double> times;
  const int rounds = first > options.seconds ? 3 : 5;
  for (int round = 0; round < rounds; ++round) times.push_back(comm::max(host, timed(each)));
  return 1e6 * quantile(times, 0.5);
}

void check_options(const CommBenchOptions& options) {
  const CommBenchOptions known;
  for (const std::string& kind : options.kinds)
    VT_REQUIRE(ConfigError, std::ranges::find(known.kinds, kind) != known.kinds.end(),
               "[bench] a collective must be one of {} but got '{}'", fmt::join(known.kinds, ", "),
               kind);
  for (const std::string& dtype : options.dtypes) type_of(dtype);
  for (const int64_t size : options.sizes)
    VT_REQUIRE(ConfigError, size >= 1 && size <= int64_t{1} << 34,
               "[bench] a size must be from 1 to {} bytes but got {}", int64_t{1} << 34, size);
}

}  // namespace

std::vector<int64_t> comm_sizes(int64_t first, int64_t last) {
  std::vector<int64_t> sizes;
  for (int64_t size = first; size <= last; size *= 4) sizes.push_back(size);
  if (!sizes.empty() && sizes.back() != last) sizes.push_back(last);
  return sizes;
}

CommFit fit_line(const std::vector<CommPoint>& points, int64_t ranks) {
  CommFit fit;
  if (points.empty()) return fit;
  fit.kind = points.front().kind, fit.dtype = points.front().dtype;
  // Weights 1 / time^2: an error of a tenth counts alike for few and many bytes.
  double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
  for (const CommPoint& point : points) {
    const double x = wire_bytes(point.kind, static_cast<double>(point.bytes), ranks), y = point.us;
    const double weight = 1 / (y * y);
    w += weight, wx += weight * x, wy += weight * y, wxx += weight * x * x, wxy += weight * x * y;
  }
  const double determinant = w * wxx - wx * wx;
  double slope = determinant > 0 ? (w * wxy - wx * wy) / determinant : 0;
  double latency = (wy - slope * wx) / w;
  if (latency < 0) latency = 0, slope = wxx > 0 ? wxy / wxx : 0;
  if (slope < 0) slope = 0, latency = wy / w;
  fit.latency_us = latency;
  fit.bus_gb_s = slope > 0 ? 1e-3 / slope : 0;
  for (const CommPoint& point : points) {
    const double line =
        latency + slope * wire_bytes(point.kind, static_cast<double>(point.bytes), ranks);
    fit.worst_ratio = std::max({fit.worst_ratio, point.us / line, line / point.us});
  }
  return fit;
}

CommBench bench_comm(comm::Communicator& group, comm::Communicator& host, at::Device device,
                     const std::string& host_name, const CommBenchOptions& given) {
  check_options(given);
  VT_REQUIRE(ConfigError, group.size() > 1,
             "[bench] comm needs at least 2 ranks but there is 1; start it with mpirun -n N");
  CommBenchOptions options = given;
  if (options.sizes.empty()) options.sizes = comm_sizes();
  CommBench bench{
      .backend = group.backend(), .device = parallel::device_name(device), .ranks = group.size()};
  const std::vector<std::string> names = comm::gather_strings(host, host_name);
  bench.hosts = static_cast<int64_t>(std::set<std::string>(names.begin(), names.end()).size());
  for (const std::string& kind : options.kinds)
    for (const std::string& dtype : options.dtypes) {
      std::vector<CommPoint> line;
      for (const int64_t size : options.sizes) {
        Case one(kind, dtype, size, group, device);
        CommPoint point{kind, dtype, one.bytes(), time_case(one, host, device, options), 0};
        point.bus_gb_s =
            wire_bytes(kind, static_cast<double>(point.bytes), bench.ranks) / point.us * 1e-3;
        line.push_back(point);
      }
      bench.fits.push_back(fit_line(line, bench.ranks));
      bench.points.insert(bench.points.end(), line.begin(), line.end());
    }
  return bench;
}

std::string describe(const CommBench& bench) {
  std::string text = fmt::format("comm  {} ranks on {} host(s)  {}  {}\n", bench.ranks, bench.hosts,
                                 bench.backend, bench.device);
  text += fmt::format("{:<16}{:<6}{:>14}{:>14}{:>12}\n", "collective", "type", "bytes", "us",
                      "bus GB/s");
  for (const CommPoint& p : bench.points)
    text += fmt::format("{:<16}{:<6}{:>14}{:>14.1f}{:>12.3f}\n", p.kind, p.dtype, p.bytes, p.us,
                        p.bus_gb_s);
  text += "latency + wire bytes / bandwidth\n";
  for (const CommFit& fit : bench.fits)
    text += fmt::format("{:<16}{:<6}{:>11.1f} us +{:>10.3f} GB/s   worst {:.2f}x off\n", fit.kind,
                        fit.dtype, fit.latency_us, fit.bus_gb_s, fit.worst_ratio);
  text.pop_back();
  return text;
}

std::string to_json(const CommBench& bench) {
  nlohmann::ordered_json points = nlohmann::ordered_json::array(), fits = points;
  for (const CommPoint& p : bench.points)
    points.push_back({{"kind", p.kind},
                      {"dtype", p.dtype},
                      {"bytes", p.bytes},
                      {"us", p.us},
                      {"bus_gb_s", p.bus_gb_s}});
  for (const CommFit& f : bench.fits)
    fits.push_back({{"kind", f.kind},
                    {"dtype", f.dtype},
                    {"latency_us", f.latency_us},
                    {"bus_gb_s", f.bus_gb_s},
                    {"worst_ratio", f.worst_ratio}});
  return nlohmann::ordered_json{{"backend", bench.backend}, {"device", bench.device},
                                {"ranks", bench.ranks},     {"hosts", bench.hosts},
                                {"points", points},         {"fits", fits}}
      .dump(2);
}

void update(Machine& machine, const CommBench& bench, const std::string& date) {
  std::set<std::string> seen;
  for (const CommFit& fit : bench.fits) {
    if (!seen.insert(fit.kind).second) continue;  // the first type stands for all
    std::erase_if(machine.collectives, [&](const MeasuredCollective& old) {
      return old.kind == fit.kind && old.ranks == bench.ranks && old.hosts == bench.hosts;
    });
    if (fit.bus_gb_s > 0)
      machine.collectives.push_back(
          {fit.kind, bench.ranks, bench.hosts, fit.latency_us, fit.bus_gb_s});
  }
  machine.date = date;
  machine.source += fmt::format("; collectives of {} ranks on {} host(s) by vitrail bench comm, {}",
                                bench.ranks, bench.hosts, date);
}

}  // namespace vitrail::train
