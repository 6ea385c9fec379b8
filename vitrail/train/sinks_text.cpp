// The texts of the metric sinks.

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "vitrail/core/text.h"
#include "vitrail/train/sinks.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using Json = nlohmann::ordered_json;

std::string bar(double share, int width) {
  const int filled = static_cast<int>(std::lround(std::min(1.0, std::max(0.0, share)) * width));
  return std::string(filled, '#') + std::string(width - filled, '-');
}

/// 8.1e-04 -> "8.1e-4".
std::string rate_text(double lr) {
  std::string text = fmt::format("{:.2e}", lr);
  for (const char* zero : {"e-0", "e+0"})
    if (const size_t at = text.find(zero); at != std::string::npos) text.erase(at + 2, 1);
  return text;
}

}  // namespace

std::string plain_line(const StepRecord& record) {
  std::string line = fmt::format(
      "step={} epoch={:.3f} loss={:.6g} grad_norm={:.4g} lr={} images_per_second={:.1f} "
      "step_ms={:.2f} "
      "data_wait_ms={:.2f}",
      record.step, record.epoch, record.loss, record.grad_norm, rate_text(record.lr),
      record.images_per_second, record.step_ms, record.data_wait_ms);
  if (record.mfu) line += fmt::format(" mfu={:.4f}", *record.mfu);
  line += fmt::format(" peak_memory_gib={:.2f} host_memory_gib={:.2f}", record.peak_memory_gib,
                      record.host_memory_gib);
  if (record.loss_scale > 0) line += fmt::format(" loss_scale={:g}", record.loss_scale);
  if (record.skipped_samples > 0)
    line += fmt::format(" skipped_samples={}", record.skipped_samples);
  for (const auto& [name, epochs] : record.sources)
    line += fmt::format(" epochs_of_{}={:.3f}", name, epochs);
  return line;
}

std::string plain_line(const EvaluationRecord& record) {
  std::string line = fmt::format("step={} epoch={:.3f} split={} samples={}", record.step,
                                 record.epoch, record.split, record.samples);
  for (const auto& [name, value] : record.metrics) line += fmt::format(" {}={:.6g}", name, value);
  return line + fmt::format(" seconds={:.2f}", record.seconds);
}

std::string bar_line(const RunLength& length, const StepRecord& record) {
  const double share =
      length.total_steps > 0 ? static_cast<double>(record.step) / length.total_steps : 1.0;
  const int64_t epochs = (length.total_steps + length.steps_per_epoch - 1) / length.steps_per_epoch;
  const int64_t epoch = std::min(epochs, (record.step - 1) / length.steps_per_epoch + 1);
  const double left = (length.total_steps - record.step) * record.step_ms / 1000;
  std::string line =
      fmt::format("{}  epoch {}/{}  step {}  {}  loss {:.4g}  lr {}  {} images/s", length.name,
                  epoch, epochs, record.step, bar(share, 10), record.loss, rate_text(record.lr),
                  core::format_count(std::llround(record.images_per_second)));
  if (record.mfu) line += fmt::format("  MFU {:.0f} %", 100 * *record.mfu);
  const double waiting = record.step_ms > 0 ? 100 * record.data_wait_ms / record.step_ms : 0;
  return line + fmt::format("  data wait {:.1f} %  left {}", waiting, core::format_duration(left));
}

std::string json_line(const StepRecord& record) {
  Json sources = Json::object();
  for (const auto& [name, epochs] : record.sources) sources[name] = epochs;
  Json line{{"step", record.step},
            {"epoch", record.epoch},
            {"samples", record.samples},
            {"loss", record.loss},
            {"lr", record.lr},
            {"grad_norm", record.grad_norm},
            {"step_ms", record.step_ms},
            {"data_wait_ms", record.data_wait_ms},
            {"images_per_second", record.images_per_second},
            {"tokens_per_second", record.tokens_per_second},
            {"model_tflops", record.model_tflops},
            {"mfu", record.mfu ? Json(*record.mfu) : Json(nullptr)},
            {"peak_memory_gib", record.peak_memory_gib},
            {"host_memory_gib", record.host_memory_gib},
            {"skipped_samples", record.skipped_samples},
            {"source_epochs", sources}};
  if (record.loss_scale > 0) line["loss_scale"] = record.loss_scale;
  for (const auto& [name, value] : record.terms) line[name] = value;
  return line.dump();
}

std::string json_line(const EvaluationRecord& record) {
  Json metrics = Json::object();
  for (const auto& [name, value] : record.metrics) metrics[name] = value;
  return Json{{"step", record.step},       {"epoch", record.epoch}, {"split", record.split},
              {"samples", record.samples}, {"metrics", metrics},    {"seconds", record.seconds}}
      .dump();
}

}  // namespace vitrail::train
