#include "vitrail/data/bench_patch.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <time.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/patching/batch.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

constexpr int64_t kMinLeaf = 2;  // the published system's
constexpr int64_t kSmall = int64_t{1} << 20;

/// Batches that a step is timed on, already on their device.
struct Subject {
  at::Tensor image, range, labels, edges;
  patching::LeafOptions options;
  std::vector<int64_t> sides;

  Subject(const PatchCase& shape, int64_t batch, at::Device device) : sides(shape.sides) {
    image = textures(batch, shape.channels, sides, /*seed=*/7);
    labels = image.select(1, 0).gt(0.5).to(at::kLong).to(device);
    range = at::zeros({batch, shape.channels, 2}, at::kFloat);
    range.select(-1, 1).fill_(1);
    range = range.to(device);
    image = image.to(device);
    edges = patching::edge_options({}, 0, 0, at::arange(batch, at::kLong), /*training=*/false)
                .to(device);
    options.fixed_length = shape.fixed_length;
    options.patch_size = shape.patch_size;
    options.min_leaf = kMinLeaf;
  }
  at::Tensor importance() const {
    return patching::importance_maps(patching::to_bytes(image, range), options, edges);
  }
};

/// Restores the number of threads.
class Threads {
 public:
  explicit Threads(int64_t threads) : before_(at::get_num_threads()) {
    at::set_num_threads(static_cast<int>(threads));
  }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

/// Of the calling thread.
double cpu_ms() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

class Meter {
 public:
  Meter(const PatchBenchOptions& options, at::Device device, int64_t batch, bool counts_cpu)
      : options_(options), device_(device), batch_(batch), counts_cpu_(counts_cpu) {}

  /// Median milliseconds a sample.
  template <class Work>
  double operator()(Work&& work) const {
    work();
    settle();
    std::vector<double> times;
    const core::Stopwatch all;
    while (std::ssize(times) < 3 ||
           (std::ssize(times) < options_.most_runs && all.seconds() < options_.seconds)) {
      const core::Stopwatch watch;
      const double cpu_before = cpu_ms();
      work();
      settle();
      times.push_back(counts_cpu_ ? cpu_ms() - cpu_before : watch.ms());
    }
    std::ranges::sort(times);
    return times[times.size() / 2] / static_cast<double>(batch_);
  }

 private:
  void settle() const {
    if (options_.settle) options_.settle(device_);
  }

  const PatchBenchOptions& options_;
  at::Device device_;
  int64_t batch_;
  bool counts_cpu_;
};

PatchTimes measure(const PatchCase& shape, const PatchBenchOptions& options, at::Device device,
                   int64_t threads, int64_t batch) {
  const Threads limit(threads);
  const Subject on(shape, batch, device);
  PatchTimes times{.device = device.str(), .threads = threads, .batch = batch};
  times.counts_cpu = device.is_cpu() && threads == 1;
  const Meter ms(options, device, batch, times.counts_cpu);
  const auto& [image, range, labels, edges, leaf, sides] = on;
  const int64_t patch = leaf.patch_size;

  const at::Tensor importance = on.importance();
  const at::Tensor boxes = patching::leaf_boxes(importance, leaf);
  const at::Tensor tokens = patching::serialise(image, boxes, patch, leaf.resample);
  const int64_t axes = boxes.size(-1) / 2;
  const at::Tensor extents = boxes.narrow(-1, axes, axes).sub(boxes.narrow(-1, 0, axes));
  times.leaves = extents.gt(0).all(-1).sum().item<double>() / static_cast<double>(batch);

  times.edge_map_ms = ms([&] { on.importance(); });
  times.tree_ms = ms([&] { patching::leaf_boxes(importance, leaf); });
  times.serialise_ms = ms([&] { patching::serialise(image, boxes, patch, leaf.resample); });
  times.paste_ms = ms([&] { patching::paste(tokens, boxes, sides, leaf.resample); });
  times.labels_ms = ms([&] { patching::serialise_labels(labels, boxes, patch, leaf.labels); });
  times.whole_ms = ms([&] { patching::make_leaves(image, range, leaf, edges); });
  return times;
}

void write_image(const PatchCase& shape, const std::string& folder) {
  const Subject on(shape, 1, at::kCPU);
  const at::Tensor edges = on.importance();
  std::vector<int64_t> sides = shape.sides;
  sides.insert(sides.begin(), shape.channels);
  std::filesystem::create_directories(folder);
  io::write_safetensors(folder + "/" + shape.name + ".safetensors",
                        {{"image", core::DType::f32, sides, on.image.const_data_ptr()},
                         {"edges", core::DType::u8, shape.sides, edges.const_data_ptr()}});
}

PatchBench::Entry bench_case(const PatchCase& shape, const PatchBenchOptions& options) {
  PatchBench::Entry entry{shape, {}};
  int64_t values = shape.channels;
  for (int64_t side : shape.sides) values *= side;
  const int64_t each = values <= kSmall ? 8 : 1;  // samples a thread
  for (at::Device device : options.devices) {
    if (device.is_cpu()) {
      entry.times.push_back(measure(shape, options, device, 1, each));
      if (options.threads > 1)
        entry.times.push_back(
            measure(shape, options, device, options.threads, each * options.threads));
    } else {
      entry.times.push_back(measure(shape, options, device, options.threads, shape.gpu_batch));
    }
  }
  return entry;
}

std::vector<PatchCase> chosen(const std::vector<std::string>& names) {
  if (names.empty()) return patch_cases();
  std::vector<std::string> known;
  for (const PatchCase& shape : patch_cases()) known.push_back(shape.name);
  std::vector<PatchCase> found;
  for (const std::string& name : names) {
    const auto at = std::ranges::find(known, name);
    VT_REQUIRE(ConfigError, at != known.end(), "[bench] '{}' is not a case; cases are {}", name,
               fmt::join(known, ", "));
    found.push_back(patch_cases()[static_cast<size_t>(at - known.begin())]);
  }
  return found;
}

}  // namespace

const std::vector<PatchCase>& patch_cases() {
  static const std::vector<PatchCase> cases{{"image256", 1, {256, 256}, 196, 8, 64},
                                            {"rgb512", 3, {512, 512}, 1024, 8, 64},
                                            {"image4096", 1, {4096, 4096}, 4096, 16, 4},
                                            {"volume64", 1, {64, 64, 64}, 512, 4, 64},
                                            {"volume128", 1, {128, 128, 128}, 4096, 8, 16}};
  return cases;
}

PatchBench bench_patch(const PatchBenchOptions& options) {
  const std::vector<PatchCase> cases = chosen(options.cases);
  PatchBench result{.date = core::utc_now(),
                    .cores = static_cast<int64_t>(std::thread::hardware_concurrency()),
                    .min_leaf = kMinLeaf};
  for (const PatchCase& shape : cases) {
    if (!options.images.empty()) write_image(shape, options.images);
    result.entries.push_back(bench_case(shape, options));
  }
  return result;
}

std::string describe(const PatchBench& r) {
  std::string text = fmt::format(
      "patch  {}{}  ms a sample\n{:10} {:6} {:>7} {:>5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} "
      "{:>10}",
      r.machine, r.gpu.empty() ? "" : ", " + r.gpu, "case", "device", "threads", "batch", "leaves",
      "edge map", "tree", "serialise", "paste", "labels", "whole", "samples/s");
  for (const PatchBench::Entry& entry : r.entries)
    for (const PatchTimes& t : entry.times)
      text += fmt::format(
          "\n{:10} {:6} {:7} {:5} {:6.0f} {:9.3f} {:9.3f} {:9.3f} {:9.3f} {:9.3f} {:9.3f} {:10.1f}",
          entry.shape.name, t.device, t.threads, t.batch, t.leaves, t.edge_map_ms, t.tree_ms,
          t.serialise_ms, t.paste_ms, t.labels_ms, t.whole_ms, t.samples_per_second());
  return text;
}

std::string to_json(const PatchBench& r) {
  nlohmann::ordered_json object = {
      {"date", r.date},   {"machine", r.machine},   {"gpu", r.gpu},
      {"cores", r.cores}, {"min_leaf", r.min_leaf}, {"cases", nlohmann::ordered_json::array()}};
  for (const PatchBench::Entry& entry : r.entries) {
    const PatchCase& shape = entry.shape;
    nlohmann::ordered_json times = nlohmann::ordered_json::array();
    for (const PatchTimes& t : entry.times)
      times.push_back({{"device", t.device},
                       {"threads", t.threads},
                       {"clock", t.counts_cpu ? "cpu" : "wall"},
                       {"batch", t.batch},
                       {"leaves", t.leaves},
                       {"edge_map_ms", t.edge_map_ms},
                       {"tree_ms", t.tree_ms},
                       {"serialise_ms", t.serialise_ms},
                       {"paste_ms", t.paste_ms},
                       {"labels_ms", t.labels_ms},
                       {"whole_ms", t.whole_ms},
                       {"samples_per_second", t.samples_per_second()}});
    object["cases"].push_back({{"name", shape.name},
                               {"channels", shape.channels},
                               {"sides", shape.sides},
                               {"fixed_length", shape.fixed_length},
                               {"patch_size", shape.patch_size},
                               {"times", times}});
  }
  return object.dump(2);
}

}  // namespace vitrail::data
