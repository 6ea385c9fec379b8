#include "vitrail/train/trace.h"

#include <fmt/format.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/parallel/device.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

using parallel::Lane;

/// Ranges of the blocks of one trunk, on the compute stream and on the host.
class Trace::BlockRanges final : public nn::StackObserver {
 public:
  BlockRanges(nn::Stack& stack, std::vector<std::string> units, parallel::Timeline& timeline)
      : stack_(stack), units_(std::move(units)), timeline_(timeline) {
    stack_.add_observer(this);
  }
  ~BlockRanges() override { stack_.remove_observer(this); }

  void before_forward(int i) override { begin("forward ", i); }
  void after_forward(int) override { end(); }
  void before_backward(int i) override { begin("backward ", i); }
  void after_backward(int) override { end(); }

 private:
  void begin(const char* what, int i) {
    const std::string name = what + units_[static_cast<size_t>(i)];
    void* stream = parallel::current_stream(timeline_.device());
    host_ = timeline_.begin(name, Lane::host, nullptr);
    compute_ = timeline_.begin(name, Lane::compute, stream);
  }
  void end() {
    timeline_.end(compute_, parallel::current_stream(timeline_.device()));
    timeline_.end(host_, nullptr);
  }

  nn::Stack& stack_;
  std::vector<std::string> units_;  // by block
  parallel::Timeline& timeline_;
  size_t host_ = 0, compute_ = 0;
};

namespace {

at::Device met(at::Device device, comm::Communicator& world) {
  parallel::synchronize(device);
  world.barrier();
  return device;
}

std::vector<std::string> unit_names(models::Model& model, const nn::Stack* stack) {
  std::vector<std::string> names;
  for (const models::UnitSpec& unit : model.units())
    if (unit.stack == stack) names.push_back(unit.name);
  return names;
}

}  // namespace

Trace::Trace(models::Model& model, at::Device device, comm::Communicator& world)
    : timeline_(met(device, world)), recording_(std::make_unique<parallel::Recording>(timeline_)) {
  for (nn::Stack* stack : model.stacks())
    blocks_.push_back(std::make_unique<BlockRanges>(*stack, unit_names(model, stack), timeline_));
}

Trace::~Trace() = default;

double exposed_ms(const std::vector<parallel::TimedRange>& ranges) {
  return parallel::uncovered_ms(ranges, {Lane::gather, Lane::reduce, Lane::exchange, Lane::copy},
                                {Lane::compute}, {Lane::blocking});
}

std::string to_chrome_events(const std::vector<parallel::TimedRange>& ranges, int rank,
                             const std::string& device) {
  using Json = nlohmann::ordered_json;
  std::string text = Json{{"ph", "M"},
                          {"name", "process_name"},
                          {"pid", rank},
                          {"args", {{"name", fmt::format("rank {}, {}", rank, device)}}}}
                         .dump();
  for (const Lane lane : {Lane::host, Lane::compute, Lane::gather, Lane::reduce, Lane::exchange,
                          Lane::copy, Lane::blocking})
    text += ",\n" + Json{{"ph", "M"},
                         {"name", "thread_name"},
                         {"pid", rank},
                         {"tid", static_cast<int>(lane)},
                         {"args", {{"name", parallel::name(lane)}}}}
                        .dump();
  for (const parallel::TimedRange& range : ranges)
    text += ",\n" + Json{{"ph", "X"},
                         {"name", range.name},
                         {"cat", parallel::name(range.lane)},
                         {"pid", rank},
                         {"tid", static_cast<int>(range.lane)},
                         {"ts", 1e3 * range.start_ms},
                         {"dur", 1e3 * (range.end_ms - range.start_ms)}}
                        .dump();
  return text;
}

void write_trace(const std::string& path, const Trace& trace, comm::Communicator& world) {
  const std::vector<parallel::TimedRange> ranges = trace.ranges();
  const std::string mine =
      to_chrome_events(ranges, world.rank(), parallel::device_name(trace.device()));
  const std::vector<std::string> all = comm::gather_strings(world, mine);
  if (world.rank() != 0) return;
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (size_t rank = 0; rank < all.size(); ++rank) text += (rank > 0 ? ",\n" : "") + all[rank];
  core::write_file_atomic(path, text + "\n]}\n");
}

}  // namespace vitrail::train
