#include "vitrail/data/bench_loader.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>

#include <sys/resource.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/data/augment_batch.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

/// Stages of large volumes are timed on as many samples as come in this time.
constexpr double kStageSeconds = 3;

/// Bytes that this process asked for in read calls so far; 0 where the system does not tell.
int64_t bytes_read_so_far() {
  std::ifstream file("/proc/self/io");
  std::string key;
  int64_t value = 0;
  while (file >> key >> value)
    if (key == "rchar:") return value;
  return 0;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t bytes_of(Batch& batch) {
  int64_t bytes = 0;
  for (const at::Tensor* tensor : batch.rows()) bytes += static_cast<int64_t>(tensor->nbytes());
  return bytes;
}

class Meter {
 public:
  Meter(Loader& loader, const config::Recipe& recipe, const LoaderBenchOptions& options)
      : loader_(loader), image_size_(recipe.model.image_size), options_(options) {}

  void warm_up() {
    LoaderRun ignored;
    for (int64_t b = 0; b < options_.warmup; ++b) take(ignored);
    settle();
  }

  LoaderRun run() {
    LoaderRun run;
    const int64_t read_before = bytes_read_so_far();
    const double cpu_before = cpu_seconds();
    const core::Stopwatch watch;
    for (int64_t b = 0;
         options_.batches > 0 ? b < options_.batches : watch.seconds() < options_.seconds; ++b)
      take(run);
    settle();
    run.seconds = watch.seconds();
    run.cpu_s = cpu_seconds() - cpu_before;
    run.bytes_read = bytes_read_so_far() - read_before;
    return run;
  }

  void take(LoaderRun& run) {
    Batch batch = loader_.next();
    run.wait_ms += loader_.waited_ms();
    run.images += batch.size();
    run.bytes_delivered += bytes_of(batch);
    if (options_.deliver)
      options_.deliver(std::move(batch));
    else
      augmented(std::move(batch), image_size_);
  }

 private:
  void settle() const {
    if (options_.settle) options_.settle();
  }

  Loader& loader_;
  const std::vector<int64_t>& image_size_;
  const LoaderBenchOptions& options_;
};

/// Times reading and decoding of one sample again, by itself.
void time_parts(const Loader& loader, int64_t epoch, int64_t id, LoaderStages& stages,
                double& whole_us) {
  const Window window = loader.window(epoch, id);
  const Reader& reader = loader.reader(loader.source_of(id));
  const std::string path = reader.describe(window.item).path;
  std::error_code unknown;
  core::Stopwatch watch;
  double read_us = 0;
  if (!reader.reads_boxes() && std::filesystem::is_regular_file(path, unknown)) {
    watch.restart();
    core::read_file(path, int64_t{1} << 40);
    read_us = 1e3 * watch.ms();
  }
  watch.restart();
  if (reader.reads_boxes())
    reader.decode_box(window.item, {window.origin, window.extent});
  else
    reader.decode(window.item);
  const double decode_us = 1e3 * watch.ms();
  stages.read_us += read_us;
  stages.decode_us += std::max(decode_us - read_us, 0.0);
  whole_us -= decode_us;
}

/// None where a file gives several samples and is decoded only once for them.
std::optional<LoaderStages> time_stages(const config::Recipe& recipe, LoaderOptions loader_options,
                                        int64_t samples) {
  loader_options.workers = 0;
  loader_options.prefetch = 1;
  loader_options.global_batch =
      std::min<int64_t>(loader_options.global_batch, 8) * loader_options.data_ranks;
  loader_options.drop_last = false;
  loader_options.pin_memory = false;
  Loader loader(recipe.data.sources, recipe.model, loader_options);
  LoaderStages stages;
  double rest_us = 0;
  const core::Stopwatch passed;
  while (stages.samples < samples && passed.seconds() < kStageSeconds) {
    const core::Stopwatch watch;
    const Batch batch = loader.next();
    rest_us += 1e3 * watch.ms();
    const int64_t* ids = batch.sample_ids.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < batch.size(); ++i, ++stages.samples) {
      const Reader& reader = loader.reader(loader.source_of(ids[i]));
      const Window window = loader.window(batch.epoch, ids[i]);
      const bool is_whole = window.extent == reader.shape(window.item).sides;
      if (!reader.reads_boxes() && (!is_whole || reader.is_costly())) return std::nullopt;
      time_parts(loader, batch.epoch, ids[i], stages, rest_us);
    }
  }
  const auto n = static_cast<double>(std::max<int64_t>(stages.samples, 1));
  stages.read_us /= n;
  stages.decode_us /= n;
  stages.transform_us = std::max(rest_us, 0.0) / n;
  return stages;
}

nlohmann::ordered_json json_of(const LoaderRun& run) {
  return {{"images", run.images},
          {"seconds", run.seconds},
          {"images_per_second", run.images_per_second()},
          {"gb_read_per_second", run.gb_read_per_second()},
          {"gb_delivered_per_second", run.gb_delivered_per_second()},
          {"wait_share", run.wait_share()},
          {"cpu_us_per_image",
           1e6 * run.cpu_s / static_cast<double>(std::max<int64_t>(run.images, 1))}};
}

}  // namespace

const LoaderRun& LoaderBench::median() const {
  VT_CHECK(!runs.empty(), "[bench] there must be a run");
  std::vector<const LoaderRun*> sorted;
  for (const LoaderRun& run : runs) sorted.push_back(&run);
  std::sort(sorted.begin(), sorted.end(), [](const LoaderRun* a, const LoaderRun* b) {
    return a->images_per_second() < b->images_per_second();
  });
  return *sorted[(sorted.size() - 1) / 2];
}

LoaderBench bench_loader(const config::Recipe& recipe, const std::string& name,
                         const LoaderOptions& loader_options, const LoaderBenchOptions& options) {
  VT_REQUIRE(ConfigError, options.runs >= 1 && (options.batches > 0 || options.seconds > 0),
             "[bench] there must be at least one run of a batch or of some time but got {} runs of "
             "{} batches or {} s",
             options.runs, options.batches, options.seconds);
  LoaderBench result{.recipe = name,
                     .date = core::utc_now(),
                     .cores = static_cast<int64_t>(std::thread::hardware_concurrency()),
                     .batch_size = recipe.data.batch_size,
                     .workers = loader_options.workers,
                     .prefetch = loader_options.prefetch,
                     .image_size = recipe.model.image_size};
  {
    core::Stopwatch watch;
    Loader loader(recipe.data.sources, recipe.model, loader_options);
    result.open_s = watch.seconds();
    result.samples = loader.samples();
    Meter meter(loader, recipe, options);
    watch.restart();
    LoaderRun ignored;
    meter.take(ignored);
    result.first_batch_ms = watch.ms();
    meter.warm_up();
    for (int64_t r = 0; r < options.runs; ++r) result.runs.push_back(meter.run());
  }
  if (options.stages > 0) result.stages = time_stages(recipe, loader_options, options.stages);
  return result;
}

std::string describe(const LoaderBench& r) {
  const LoaderRun& run = r.median();
  const auto [low, high] =
      std::minmax_element(r.runs.begin(), r.runs.end(), [](const LoaderRun& a, const LoaderRun& b) {
        return a.images_per_second() < b.images_per_second();
      });
  std::string line = fmt::format(
      "loader  {}  {:.0f} images/s (median of {}, {:.0f} to {:.0f})  {:.3f} GB/s read, {:.3f} GB/s "
      "delivered  waits {:.0f} %  {:.1f} us of CPU an image  {} threads on {} cores, batch {}",
      r.recipe, run.images_per_second(), r.runs.size(), low->images_per_second(),
      high->images_per_second(), run.gb_read_per_second(), run.gb_delivered_per_second(),
      100 * run.wait_share(), 1e6 * run.cpu_s / static_cast<double>(run.images), r.workers, r.cores,
      r.batch_size);
  if (r.stages)
    line += fmt::format("  one thread: read {:.1f}, decode {:.1f}, transform {:.1f} us",
                        r.stages->read_us, r.stages->decode_us, r.stages->transform_us);
  return fmt::format("{}  {}  {}", line, r.device, r.machine);
}

std::string to_json(const LoaderBench& r) {
  nlohmann::ordered_json object = {
      {"recipe", r.recipe},         {"date", r.date},
      {"machine", r.machine},       {"device", r.device},
      {"cores", r.cores},           {"workers", r.workers},
      {"prefetch", r.prefetch},     {"batch_size", r.batch_size},
      {"image_size", r.image_size}, {"samples", r.samples},
      {"open_s", r.open_s},         {"first_batch_ms", r.first_batch_ms}};
  object.update(json_of(r.median()));
  object["runs"] = nlohmann::ordered_json::array();
  for (const LoaderRun& run : r.runs) object["runs"].push_back(json_of(run));
  object["stages"] = nullptr;
  if (r.stages)
    object["stages"] = {{"samples", r.stages->samples},
                        {"read_us", r.stages->read_us},
                        {"decode_us", r.stages->decode_us},
                        {"transform_us", r.stages->transform_us}};
  return object.dump(2);
}

}  // namespace vitrail::data
