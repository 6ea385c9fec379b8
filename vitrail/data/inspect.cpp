#include "vitrail/data/inspect.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/thread_pool.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxHeaders = 1000;
constexpr size_t kFirstSamples = 5;

/// Element i of `n` places spread evenly over a list of `size`.
int64_t spread(int64_t i, int64_t n, int64_t size) { return i * size / n; }

/// Integer sums, so that the result does not depend on which thread saw which file.
struct Sums {
  std::vector<uint64_t> sum, square;  // per channel
  uint64_t pixels = 0;
  float full_scale = 255;

  void add(const Pixels& image) {
    const auto channels = static_cast<size_t>(image.channels);
    sum.resize(channels);
    square.resize(channels);
    for (size_t i = 0; i < image.values.size(); ++i) {
      const uint64_t value = image.values[i];
      sum[i % channels] += value;
      square[i % channels] += value * value;
    }
    pixels += image.values.size() / channels;
    full_scale = image.full_scale;
  }

  void add(const Sums& other) {
    if (other.pixels == 0) return;
    sum.resize(other.sum.size());
    square.resize(other.sum.size());
    for (size_t c = 0; c < sum.size(); ++c) {
      sum[c] += other.sum[c];
      square[c] += other.square[c];
    }
    pixels += other.pixels;
    full_scale = other.full_scale;
  }
};

void fill_statistics(const Sums& sums, SourceReport& report) {
  if (sums.pixels == 0) return;
  const auto n = static_cast<double>(sums.pixels);
  for (size_t c = 0; c < sums.sum.size(); ++c) {
    const double mean = static_cast<double>(sums.sum[c]) / n;
    const double variance = static_cast<double>(sums.square[c]) / n - mean * mean;
    report.mean.push_back(mean / sums.full_scale);
    report.std.push_back(std::sqrt(std::max(variance, 0.0)) / sums.full_scale);
  }
}

void read_headers(const Reader& reader, SourceReport& report) {
  const int64_t n = std::min(reader.size(), kMaxHeaders);
  for (int64_t i = 0; i < n; ++i) {
    try {
      const Shape shape = reader.shape(spread(i, n, reader.size()));
      ++report.shapes[fmt::format("{}, {} channel{}", describe(shape.sides), shape.channels,
                                  shape.channels == 1 ? "" : "s")];
      ++report.headers;
    } catch (const core::DataError&) {  // listed when the pixels are read
    }
  }
}

void read_pixels(const Reader& reader, const config::Model& model, int64_t workers,
                 int64_t max_samples, SourceReport& report) {
  const int64_t n = std::min(reader.size(), max_samples);
  std::mutex mutex;
  Sums sums;
  std::map<int64_t, std::string> broken;
  const auto read_one = [&](int64_t sample) {
    try {
      Sums own;
      own.add(to_channels(reader.decode(sample), model.in_channels, reader.describe(sample).path));
      const std::lock_guard lock(mutex);
      sums.add(own);
      ++report.decoded;
    } catch (const core::DataError& error) {
      const std::lock_guard lock(mutex);
      broken[sample] = error.what();
    }
  };
  const int threads = static_cast<int>(std::clamp<int64_t>(workers, 1, 256));
  core::parallel_for(threads, 0, n, /*grain=*/16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) read_one(spread(i, n, reader.size()));
  });
  for (const auto& [sample, message] : broken) report.broken.push_back(message);
  fill_statistics(sums, report);
}

std::string class_lines(const SourceReport& report) {
  std::string text;
  for (const auto& [label, samples] : report.labels) {
    const bool has_name = label >= 0 && label < static_cast<int64_t>(report.class_names.size());
    text += fmt::format("  class {:<4} {:<24} {} samples\n", label,
                        has_name ? report.class_names[static_cast<size_t>(label)] : "", samples);
  }
  return text;
}

}  // namespace

SourceReport inspect(const config::Source& source, const config::Model& model, int64_t workers,
                     int64_t max_samples) {
  const std::unique_ptr<Reader> reader = open_reader(source, model);
  SourceReport report;
  report.name = source_name(source);
  report.reader = source.reader.value;
  report.root = source.root;
  report.samples = reader->size();
  report.class_names = reader->class_names();
  for (int64_t i = 0; i < reader->size(); ++i) {
    SampleInfo info = reader->describe(i);
    ++report.labels[info.label];
    if (report.first.size() < kFirstSamples) report.first.push_back(std::move(info));
  }
  read_headers(*reader, report);
  read_pixels(*reader, model, workers, max_samples, report);
  return report;
}

std::string to_text(const SourceReport& report) {
  std::string text =
      fmt::format("source {}: reader {}, {} samples, {} classes, root {}\n", report.name,
                  report.reader, report.samples, report.class_names.size(), report.root);
  text += class_lines(report);
  for (const auto& [shape, files] : report.shapes)
    text += fmt::format("  shape {}: {} of {} read\n", shape, files, report.headers);
  text +=
      fmt::format("  mean: [{:.4f}]  std: [{:.4f}]  (in [0, 1], over the pixels of {} samples)\n",
                  fmt::join(report.mean, ", "), fmt::join(report.std, ", "), report.decoded);
  for (const SampleInfo& info : report.first)
    text += fmt::format("  sample {} label {}\n", info.path, info.label);
  text += fmt::format("  broken files: {}\n", report.broken.size());
  for (const std::string& message : report.broken) text += fmt::format("    {}\n", message);
  return text;
}

}  // namespace vitrail::data
