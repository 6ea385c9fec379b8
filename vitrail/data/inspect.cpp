#include "vitrail/data/inspect.h"

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/data/statistics_histogram.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxHeaders = 1000;
constexpr size_t kFirstSamples = 5;

/// Element i of `n` places spread evenly over a list of `size`.
int64_t spread(int64_t i, int64_t n, int64_t size) { return i * size / n; }

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

void count_boxes(const Reader& reader, int64_t i, SourceReport& report,
                 std::map<int64_t, std::string>& broken) {
  if (reader.max_boxes() == 0) return;
  try {
    const std::vector<LabelledBox> boxes = reader.boxes(i);
    for (const LabelledBox& box : boxes) ++report.boxes[box.label];
    report.max_boxes = std::max(report.max_boxes, static_cast<int64_t>(boxes.size()));
  } catch (const core::DataError& error) {
    broken[i] = error.what();
  }
}

void read_labels(const Reader& reader, SourceReport& report,
                 std::map<int64_t, std::string>& broken) {
  std::vector<Moments> targets;
  for (int64_t i = 0; i < reader.size(); ++i) {
    SampleInfo info = reader.describe(i);
    ++report.labels[info.label];
    targets.resize(std::max(targets.size(), info.values.size()));
    for (size_t v = 0; v < info.values.size(); ++v)
      targets[v].add(static_cast<double>(info.values[v]), 1);
    count_boxes(reader, i, report, broken);
    if (report.first.size() < kFirstSamples) report.first.push_back(std::move(info));
  }
  for (const Moments& target : targets)
    report.targets.push_back({target.mean, target.std(), target.min, target.max, {}});
}

}  // namespace

SourceReport inspect(const config::Source& source, const config::Model& model, int64_t workers,
                     int64_t max_samples, const Progress& progress) {
  const std::unique_ptr<Reader> reader = open_reader(source, model);
  SourceReport report;
  report.name = source_name(source);
  report.reader = source.reader.value;
  report.root = source.root;
  report.files = reader->size();
  report.samples = Windows(source, model, *reader, /*training=*/true).size();
  report.class_names = reader->class_names();
  std::map<int64_t, std::string> broken;
  read_labels(*reader, report, broken);
  read_headers(*reader, report);
  ValuesReport values = read_values(*reader, source, model, workers, max_samples, progress);
  report.statistics = std::move(values.statistics);
  report.mask_pixels = std::move(values.mask_pixels);
  broken.merge(values.broken);
  for (const auto& [file, message] : broken) report.broken.push_back(message);
  return report;
}

}  // namespace vitrail::data
