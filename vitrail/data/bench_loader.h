#pragma once
/// Throughput of a recipe's loader with nothing behind it, and where the time goes.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {

struct LoaderBenchOptions {
  int64_t runs = 3;
  int64_t batches = 0;   // of a run; 0 = as many as come in `seconds`
  double seconds = 5;    // of a run
  int64_t warmup = 8;    // batches before the first run
  int64_t stages = 256;  // samples whose stages are timed one by one; 0 = none
  /// What is done with a batch as it comes (upload, augmentation), and how to wait for all of it;
  /// empty = augmented() on the CPU.
  std::function<void(Batch)> deliver;
  std::function<void()> settle;
};

/// One run. Bytes read are those of the process's read calls; memory-mapped files do not count there.
struct LoaderRun {
  int64_t images = 0;
  double seconds = 0;
  double wait_ms = 0;  // of all calls of Loader::next
  double cpu_s = 0;    // of the whole process, all threads
  int64_t bytes_read = 0, bytes_delivered = 0;

  double images_per_second() const { return static_cast<double>(images) / seconds; }
  double gb_read_per_second() const { return static_cast<double>(bytes_read) * 1e-9 / seconds; }
  double gb_delivered_per_second() const {
    return static_cast<double>(bytes_delivered) * 1e-9 / seconds;
  }
  double wait_share() const { return wait_ms / (1e3 * seconds); }
};

/// Microseconds of one sample on one thread, files in the page cache.
struct LoaderStages {
  int64_t samples = 0;
  double read_us = 0;       // the file's bytes; 0 where a sample is not a file of its own
  double decode_us = 0;     // from bytes to pixels
  double transform_us = 0;  // window, resize, normalisation, into the batch
};

struct LoaderBench {
  std::string recipe, device = "cpu";
  std::string machine;  // for the caller to fill in
  std::string date;     // UTC
  int64_t cores = 0;    // that this process may use
  int64_t batch_size = 0, workers = 0, prefetch = 0;
  int64_t samples = 0;              // in the list
  std::vector<int64_t> image_size;  // of the model
  double open_s = 0;                // listing and headers
  double first_batch_ms = 0;
  std::vector<LoaderRun> runs;
  std::optional<LoaderStages> stages;

  /// The run of median images_per_second.
  const LoaderRun& median() const;
};

/// Training batches of the recipe, as this rank of `options` reads them. `name` stands for the recipe.
LoaderBench bench_loader(const config::Recipe& recipe, const std::string& name,
                         const LoaderOptions& loader, const LoaderBenchOptions& options);
std::string describe(const LoaderBench& result);
/// One JSON object; what `bench loader --json` writes.
std::string to_json(const LoaderBench& result);

}  // namespace vitrail::data
