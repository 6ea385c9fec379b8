#pragma once
/// Times of adaptive patching, step by step, on synthetic images with texture.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::data {

/// One shape that is measured.
struct PatchCase {
  std::string name;
  int64_t channels;
  std::vector<int64_t> sides;
  int64_t fixed_length, patch_size;
  int64_t gpu_batch;  // samples of a batch on a GPU
};

/// image256, rgb512, image4096, volume64, volume128.
const std::vector<PatchCase>& patch_cases();

struct PatchBenchOptions {
  std::vector<std::string> cases;  // names; empty = all
  /// Where: the CPU with one thread and with `threads`, and GPUs.
  std::vector<at::Device> devices;
  int64_t threads = 0;
  double seconds = 0.5;  // of each step, after a warm-up
  int64_t most_runs = 50;
  /// Waits for all that a device was given.
  std::function<void(at::Device)> settle;
  /// Where each case's first image is written as NAME.safetensors (image [C, sides...], edges [sides...]); empty =
  /// nowhere.
  std::string images;
};

/// Medians, milliseconds a sample: the batch's time divided by its samples. On one thread of the CPU it is the thread's
/// CPU time, so that other programs of the machine do not count; elsewhere the time that passes.
struct PatchTimes {
  std::string device;
  int64_t threads = 0;  // of the CPU
  bool counts_cpu = false;
  int64_t batch = 0;
  double leaves = 0;  // mean of the samples, padding not counted
  double edge_map_ms = 0, tree_ms = 0, serialise_ms = 0, paste_ms = 0, labels_ms = 0;
  double whole_ms = 0;  // patching::make_leaves: edge map, tree and tokens

  double samples_per_second() const { return 1e3 / whole_ms; }
};

struct PatchBench {
  struct Entry {
    PatchCase shape;
    std::vector<PatchTimes> times;
  };
  std::string machine, gpu;  // for the caller to fill in
  std::string date;          // UTC
  int64_t cores = 0;
  int64_t min_leaf = 0;
  std::vector<Entry> entries;
};

/// throws   ConfigError for an unknown case.
PatchBench bench_patch(const PatchBenchOptions& options);

/// A table for people.
std::string describe(const PatchBench& result);
/// One JSON object; what `bench patch --json` writes.
std::string to_json(const PatchBench& result);

/// float [n, channels, sides...] in 0 ... 1: blobs with sharp borders, smooth shades and a little noise, another for
/// each seed and sample. What is measured on.
at::Tensor textures(int64_t n, int64_t channels, const std::vector<int64_t>& sides, uint64_t seed);

}  // namespace vitrail::data
