#include "vitrail/train/bench_attention.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include <ATen/core/grad_mode.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/attention_contenders.h"
#include "vitrail/train/bench_timer.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

using kernels::AttentionShape;

constexpr int kTurns = 3;
constexpr int64_t kFewest = 3, kMost = 2000;  // calls of a turn

double operations(const AttentionShape& shape) {
  return static_cast<double>(shape.samples * shape.heads * shape.head_width) *
         static_cast<double>(shape.tokens) * static_cast<double>(shape.tokens);
}

/// Medians of all, in turns, so that the device's clock is the same for each.
std::vector<double> medians(const std::vector<std::function<void()>>& works, at::Device device,
                            double seconds) {
  std::vector<std::vector<double>> times(works.size());
  std::vector<double> about;
  for (const auto& work : works) about.push_back(time_hot(device, seconds / (2 * kTurns), work));
  for (int turn = 0; turn < kTurns; ++turn)
    for (size_t i = 0; i < works.size(); ++i) {
      const auto calls = static_cast<int64_t>(1e3 * seconds / (kTurns * about[i]));
      const std::vector<double> some =
          time_each(device, std::clamp(calls, kFewest, kMost), works[i]);
      times[i].insert(times[i].end(), some.begin(), some.end());
    }
  std::vector<double> result;
  for (auto& one : times) result.push_back(quantile(std::move(one), 0.5));
  return result;
}

/// The one that others are compared with: the first there is of these.
size_t anchor(const std::vector<AttentionContender>& contenders) {
  for (const char* kind : {"cudnn", "aten-cudnn", "aten"})
    for (size_t i = 0; i < contenders.size(); ++i)
      if (contenders[i].kind == kind) return i;
  return contenders.size();
}

std::vector<AttentionTime> bench_shape(const AttentionShape& shape,
                                       const AttentionBenchOptions& options, at::Device device) {
  const AttentionValues values(shape, device, options.value_scale);
  const std::vector<AttentionContender> contenders = attention_contenders(values, options.kinds);
  std::vector<std::function<void()>> forward, both;
  std::vector<AttentionTime> rows;
  for (const AttentionContender& one : contenders) {
    (options.backward ? one.both : one.forward)();
    parallel::synchronize(device);
    const AttentionError error = attention_error(values, one.result(), shape.samples - 1,
                                                 shape.kv_heads - 1, options.backward);
    AttentionTime row{.shape = shape, .kind = one.kind};
    row.forward_error = error.out;
    row.backward_error = std::max({error.dq, error.dk, error.dv});
    row.workspace_bytes = one.workspace_bytes;
    row.build_ms = one.build_ms;
    rows.push_back(row);
    forward.push_back(one.forward);
    both.push_back(one.both);
  }
  const std::vector<double> forward_ms = medians(forward, device, options.seconds);
  const std::vector<double> both_ms =
      options.backward ? medians(both, device, options.seconds) : std::vector<double>{};
  const size_t first = anchor(contenders);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].forward_ms = forward_ms[i];
    rows[i].forward_tflops = 4e-9 * operations(shape) / forward_ms[i];
    if (first < rows.size()) rows[i].forward_ratio = forward_ms[first] / forward_ms[i];
    if (both_ms.empty()) continue;
    rows[i].both_ms = both_ms[i];
    rows[i].both_tflops = 14e-9 * operations(shape) / both_ms[i];
    if (first < rows.size()) rows[i].both_ratio = both_ms[first] / both_ms[i];
  }
  return rows;
}

std::string words(const AttentionShape& s) {
  std::string text = fmt::format("{}x{}x{}x{}", s.samples, s.tokens, s.heads, s.head_width);
  if (s.kv_heads != s.heads) text += fmt::format("x{}", s.kv_heads);
  return s.has_lengths ? text + " lengths" : text;
}

}  // namespace

std::vector<AttentionShape> usual_attention_shapes(at::Device device) {
  const auto shape = [](int64_t samples, int64_t tokens, int64_t heads, int64_t width) {
    return AttentionShape{samples, tokens, heads, heads, width, false};
  };
  if (!device.is_cuda()) return {shape(2, 50, 3, 64), shape(2, 197, 3, 64)};
  return {shape(256, 197, 12, 64), shape(256, 256, 12, 64), shape(256, 197, 16, 64),
          shape(128, 257, 16, 80), shape(128, 256, 16, 80), shape(128, 257, 16, 96),
          shape(32, 257, 32, 88),  shape(256, 50, 16, 64),  shape(8, 1024, 16, 64),
          shape(8, 4096, 16, 128), shape(1, 13107, 16, 96), shape(1, 32768, 32, 16),
          shape(1, 32768, 16, 32)};
}

AttentionShape parse_attention_shape(const std::string& text, bool has_lengths) {
  std::vector<int64_t> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, 'x');) {
    const bool is_number = !part.empty() && part.size() < 10 &&
                           part.find_first_not_of("0123456789") == std::string::npos;
    numbers.push_back(is_number ? std::stoll(part) : 0);
  }
  if (numbers.size() == 4) numbers.push_back(numbers[2]);
  const bool is_sound = numbers.size() == 5 &&
                        std::all_of(numbers.begin(), numbers.end(), [](auto n) { return n > 0; }) &&
                        numbers[2] % numbers[4] == 0 && numbers[3] % 8 == 0;
  VT_REQUIRE(ConfigError, is_sound,
             "[bench] a shape must be samples x tokens x heads x head width (a multiple of 8), as "
             "256x197x12x64, with x heads of k and v (a divisor of heads) if those are fewer, but "
             "got '{}'",
             text);
  return {numbers[0], numbers[1], numbers[2], numbers[4], numbers[3], has_lengths};
}

AttentionBench bench_attention(const AttentionBenchOptions& options, at::Device device) {
  AttentionBench bench{parallel::device_name(device), {}};
  for (const AttentionShape& shape : options.shapes) {
    std::vector<AttentionTime> rows = bench_shape(shape, options, device);
    bench.rows.insert(bench.rows.end(), rows.begin(), rows.end());
  }
  return bench;
}

std::string describe(const AttentionBench& bench) {
  std::string text = fmt::format(
      "attention  bf16  {}\n{:<26} {:<11} {:>9} {:>8} {:>6} {:>9} {:>8} {:>6}  {:>8} {:>8}",
      bench.device, "samples x tokens x heads", "kind", "forward", "TFLOP/s", "ratio", "fwd+bwd",
      "TFLOP/s", "ratio", "error", "gradient");
  const auto ratio = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.2f}", *value) : std::string("-");
  };
  for (const AttentionTime& row : bench.rows) {
    text += fmt::format("\n{:<26} {:<11} {:>9.3f} {:>8.1f} {:>6}", words(row.shape), row.kind,
                        row.forward_ms, row.forward_tflops, ratio(row.forward_ratio));
    if (row.both_ms > 0)
      text +=
          fmt::format(" {:>9.3f} {:>8.1f} {:>6}  {:>8.1e} {:>8.1e}", row.both_ms, row.both_tflops,
                      ratio(row.both_ratio), row.forward_error, row.backward_error);
    else
      text +=
          fmt::format(" {:>9} {:>8} {:>6}  {:>8.1e} {:>8}", "-", "-", "-", row.forward_error, "-");
  }
  return text;
}

std::string to_json(const AttentionBench& bench) {
  const auto or_null = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const AttentionTime& row : bench.rows) {
    const bool both = row.both_ms > 0;
    rows.push_back(
        {{"samples", row.shape.samples},
         {"tokens", row.shape.tokens},
         {"heads", row.shape.heads},
         {"kv_heads", row.shape.kv_heads},
         {"head_width", row.shape.head_width},
         {"lengths", row.shape.has_lengths},
         {"kind", row.kind},
         {"forward_ms", row.forward_ms},
         {"forward_tflops", row.forward_tflops},
         {"forward_ratio", or_null(row.forward_ratio)},
         {"both_ms", or_null(both ? std::optional(row.both_ms) : std::nullopt)},
         {"both_tflops", or_null(both ? std::optional(row.both_tflops) : std::nullopt)},
         {"both_ratio", or_null(row.both_ratio)},
         {"forward_error", row.forward_error},
         {"backward_error", or_null(both ? std::optional(row.backward_error) : std::nullopt)},
         {"workspace_bytes", row.workspace_bytes},
         {"build_ms", row.build_ms}});
  }
  return nlohmann::ordered_json{
      {"bench", "attention"}, {"device", bench.device}, {"precision", "bf16"}, {"rows", rows}}
      .dump(2);
}

}  // namespace vitrail::train
