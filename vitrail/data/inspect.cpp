#include "vitrail/data/inspect.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/thread_pool.h"
#include "vitrail/data/transform.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxHeaders = 1000;
constexpr size_t kFirstSamples = 5;

/// Element i of `n` places spread evenly over a list of `size`.
int64_t spread(int64_t i, int64_t n, int64_t size) { return i * size / n; }

/// Per channel. Files are added in their order, so that the
/// result does not depend on which thread saw which file.
struct Sums {
  std::vector<double> sum, square;
  int64_t pixels = 0;
  std::map<int64_t, int64_t> mask_pixels;

  explicit Sums(size_t channels) : sum(channels), square(channels) {}

  void add(const Decoded& file) {
    const size_t channels = sum.size();
    with_values(file.image, [&](const auto& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        const size_t c = i % channels;
        const double value = scaled(static_cast<double>(values[i]), file.range, c);
        sum[c] += value;
        square[c] += value * value;
      }
    });
    pixels += count(file.image.sides);
    for (const int32_t label : file.mask.classes) ++mask_pixels[label];
  }

  void add(const Sums& other) {
    for (size_t c = 0; c < sum.size(); ++c) {
      sum[c] += other.sum[c];
      square[c] += other.square[c];
    }
    pixels += other.pixels;
    for (const auto& [label, n] : other.mask_pixels) mask_pixels[label] += n;
  }

 private:
  static double scaled(double value, const ValueRange& range, size_t c) {
    const double result = (value - range.low[c]) / range.span[c];
    return range.clips ? std::clamp(result, 0.0, 1.0) : result;
  }
};

void fill_statistics(const Sums& sums, SourceReport& report) {
  report.mask_pixels = sums.mask_pixels;
  if (sums.pixels == 0) return;
  const auto n = static_cast<double>(sums.pixels);
  for (size_t c = 0; c < sums.sum.size(); ++c) {
    const double mean = sums.sum[c] / n;
    report.mean.push_back(mean);
    report.std.push_back(std::sqrt(std::max(sums.square[c] / n - mean * mean, 0.0)));
  }
}

void read_headers(const Reader& reader, SourceReport& report) {
  const int64_t n = std::min(reader.size(), kMaxHeaders);
  for (int64_t i = 0; i < n; ++i) {
    try {
      const Shape shape = reader.shape(spread(i, n, reader.size()));
      ++report.shapes[fmt::format("{}, {} channel{}{}{}", describe(shape.sides), shape.channels,
                                  shape.channels == 1 ? "" : "s", shape.detail.empty() ? "" : ", ",
                                  shape.detail)];
      ++report.headers;
    } catch (const core::DataError&) {  // listed when the pixels are read
    }
  }
}

void read_pixels(const Reader& reader, const Transform& transform, int64_t workers,
                 int64_t max_samples, SourceReport& report) {
  const int64_t n = std::min(reader.size(), max_samples);
  std::mutex mutex;
  std::map<int64_t, Sums> sums;
  std::map<int64_t, std::string> broken;
  const auto read_one = [&](int64_t file) {
    try {
      Sums own(static_cast<size_t>(transform.channels()));
      own.add(transform.prepare(reader.decode(file),
                                reader.has_masks() ? reader.decode_mask(file) : Mask{},
                                reader.describe(file).path));
      const std::lock_guard lock(mutex);
      sums.emplace(file, std::move(own));
      ++report.decoded;
    } catch (const core::DataError& error) {
      const std::lock_guard lock(mutex);
      broken[file] = error.what();
    }
  };
  const int threads = static_cast<int>(std::clamp<int64_t>(workers, 1, 256));
  const int64_t grain = reader.is_costly() ? 1 : 16;
  core::parallel_for(threads, 0, n, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) read_one(spread(i, n, reader.size()));
  });
  for (const auto& [file, message] : broken) report.broken.push_back(message);
  Sums total(static_cast<size_t>(transform.channels()));
  for (const auto& [file, own] : sums) total.add(own);
  fill_statistics(total, report);
}

std::string class_lines(const SourceReport& report) {
  std::string text;
  for (const auto& [label, samples] : report.labels) {
    const bool has_name = label >= 0 && label < static_cast<int64_t>(report.class_names.size());
    text += fmt::format("  class {:<4} {:<24} {} samples\n", label,
                        has_name ? report.class_names[static_cast<size_t>(label)] : "", samples);
  }
  int64_t all = 0;
  for (const auto& [label, pixels] : report.mask_pixels) all += pixels;
  for (const auto& [label, pixels] : report.mask_pixels)
    text += fmt::format("  mask class {:<4} {:.2f} % of the pixels\n", label,
                        100.0 * static_cast<double>(pixels) / static_cast<double>(all));
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
  report.files = reader->size();
  report.samples = Windows(source, model, *reader, /*training=*/true).size();
  report.class_names = reader->class_names();
  for (int64_t i = 0; i < reader->size(); ++i) {
    SampleInfo info = reader->describe(i);
    ++report.labels[info.label];
    if (report.first.size() < kFirstSamples) report.first.push_back(std::move(info));
  }
  read_headers(*reader, report);
  read_pixels(*reader, Transform(source, model, /*training=*/false, /*raw=*/true), workers,
              max_samples, report);
  return report;
}

std::string to_text(const SourceReport& report) {
  std::string text =
      fmt::format("source {}: reader {}, {} samples{}, {} classes, root {}\n", report.name,
                  report.reader, report.samples,
                  report.samples == report.files ? "" : fmt::format(" of {} files", report.files),
                  report.class_names.size(), report.root);
  text += class_lines(report);
  for (const auto& [shape, files] : report.shapes)
    text += fmt::format("  shape {}: {} of {} read\n", shape, files, report.headers);
  text += fmt::format(
      "  mean: [{:.4f}]  std: [{:.4f}]  (after normalize, over the pixels of {} files)\n",
      fmt::join(report.mean, ", "), fmt::join(report.std, ", "), report.decoded);
  for (const SampleInfo& info : report.first)
    text += fmt::format("  sample {} label {}\n", info.path, info.label);
  text += fmt::format("  broken files: {}\n", report.broken.size());
  for (const std::string& message : report.broken) text += fmt::format("    {}\n", message);
  return text;
}

}  // namespace vitrail::data
