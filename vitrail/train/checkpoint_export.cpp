#include "vitrail/train/checkpoint_export.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/models/weights.h"
#include "vitrail/train/checkpoint_manifest.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

/// "step: 10 and 12\n", or nothing when they are equal.
template <class T>
std::string difference_line(const char* key, const T& a, const T& b) {
  return a == b ? "" : fmt::format("{}: {} and {}\n", key, a, b);
}

}  // namespace

std::string describe_checkpoint(const std::string& path, bool full) {
  const std::string name = fs::path(path).filename().string();
  try {
    const CheckpointReader reader(path);
    if (full) reader.verify();
    int64_t bytes = 0;
    for (const auto& [file, entry] : reader.manifest().files) bytes += entry.bytes;
    const CheckpointInfo& info = reader.info();
    return fmt::format("{}  step {}  epoch {}  {}  {}  {} file{}  valid{}", name, info.step,
                       info.loader.epoch, info.created_utc, core::format_bytes(bytes),
                       reader.manifest().files.size(),
                       reader.manifest().files.size() == 1 ? "" : "s", full ? ", every byte" : "");
  } catch (const core::Error& error) {
    return fmt::format("{}  not valid: {}", name, error.what());
  }
}

std::string describe_difference(const CheckpointReader& a, const CheckpointReader& b) {
  const CheckpointInfo &x = a.info(), &y = b.info();
  std::string text = difference_line("step", x.step, y.step) +
                     difference_line("update_count", x.update_count, y.update_count) +
                     difference_line("skipped_updates", x.skipped_updates, y.skipped_updates) +
                     difference_line("epoch", x.loader.epoch, y.loader.epoch) +
                     difference_line("batch", x.loader.batch, y.loader.batch) +
                     difference_line("seed", x.seed, y.seed) +
                     difference_line("mesh", x.mesh, y.mesh) +
                     difference_line("program", x.program, y.program);
  if (x.recipe != y.recipe) text += "recipe: differs\n";
  int64_t equal = 0, differ = 0;
  double largest = 0;
  for (const TensorDifference& tensor : compare_checkpoints(a, b)) {
    if (tensor.note.empty() && tensor.max_difference == 0) {
      ++equal;
      continue;
    }
    ++differ;
    largest = std::max(largest, tensor.max_difference);
    text += tensor.note.empty()
                ? fmt::format("{}: largest difference {:.6g}\n", tensor.name, tensor.max_difference)
                : fmt::format("{}: {}\n", tensor.name, tensor.note);
  }
  return text + fmt::format("{} tensors equal, {} differ, largest difference {:.6g}\n", equal,
                            differ, largest);
}

int64_t export_parameters(const std::string& path, bool ema, const std::string& output) {
  const std::vector<nn::NamedTensor> parameters = read_parameters(path, ema);
  try {
    // The Python library's reader wants to know which framework's layout this is.
    models::write_tensors(output, parameters, {{"format", "pt"}});
  } catch (const core::CheckpointError&) {
    throw;
  } catch (const core::Error& error) {
    core::fail<core::CheckpointError>("[checkpoint] {}: cannot write: {}", output, error.what());
  }
  return static_cast<int64_t>(parameters.size());
}

}  // namespace vitrail::train
