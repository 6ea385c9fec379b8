// What inspect() found, for people and for programs.

#include <array>

#include <fmt/ranges.h>

#include "vitrail/data/inspect.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kPercents{0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9};

std::string class_name(const SourceReport& report, int64_t label) {
  const bool has_name = label >= 0 && label < static_cast<int64_t>(report.class_names.size());
  return has_name ? report.class_names[static_cast<size_t>(label)] : "";
}

std::string class_lines(const SourceReport& report) {
  std::string text;
  for (const auto& [label, samples] : report.labels)
    text +=
        fmt::format("  class {:<4} {:<24} {} samples\n", label, class_name(report, label), samples);
  int64_t all = 0;
  for (const auto& [label, pixels] : report.mask_pixels) all += pixels;
  for (const auto& [label, pixels] : report.mask_pixels)
    text += fmt::format("  mask class {:<4} {:.2f} % of the pixels\n", label,
                        100.0 * static_cast<double>(pixels) / static_cast<double>(all));
  for (const auto& [label, boxes] : report.boxes)
    text +=
        fmt::format("  box class {:<4} {:<24} {} boxes\n", label, class_name(report, label), boxes);
  if (report.max_boxes > 0) text += fmt::format("  at most {} boxes an image\n", report.max_boxes);
  for (size_t v = 0; v < report.targets.size(); ++v)
    text += fmt::format("  target {:<4} mean {:.6g}, std {:.6g}, from {:.6g} to {:.6g}\n", v,
                        report.targets[v].mean, report.targets[v].std, report.targets[v].min,
                        report.targets[v].max);
  return text;
}

std::string channel_name(const SourceStatistics& statistics, size_t c) {
  return c < statistics.variables.size() ? statistics.variables[c] : fmt::format("{}", c);
}

/// A line a channel, in units of the file.
std::string channel_table(const SourceStatistics& statistics) {
  if (statistics.raw.empty()) return "";
  std::string text = fmt::format("  {:<12} {:>11} {:>11} {:>11}", "channel", "mean", "std", "min");
  for (const double percent : kPercents) text += fmt::format(" {:>9} %", percent);
  text += fmt::format(" {:>11}\n", "max");
  for (size_t c = 0; c < statistics.raw.size(); ++c) {
    const ChannelStatistics& channel = statistics.raw[c];
    text += fmt::format("  {:<12} {:>11.5g} {:>11.5g} {:>11.5g}", channel_name(statistics, c),
                        channel.mean, channel.std, channel.min);
    for (const double percent : kPercents)
      text += fmt::format(" {:>11.5g}", channel.percentile(percent));
    text += fmt::format(" {:>11.5g}\n", channel.max);
  }
  text += fmt::format("  in units of the file, {} pixels of {} files; percentiles {}\n",
                      statistics.pixels, statistics.files,
                      statistics.percentile_error == 0 ? "exact"
                                                       : fmt::format("within {:.2g} of themselves",
                                                                     statistics.percentile_error));
  if (statistics.not_finite > 0)
    text +=
        fmt::format("  {} values are NaN or infinite and count nowhere\n", statistics.not_finite);
  return text;
}

std::vector<double> each(const std::vector<ChannelStatistics>& channels,
                         double ChannelStatistics::*number) {
  std::vector<double> values;
  for (const ChannelStatistics& channel : channels) values.push_back(channel.*number);
  return values;
}

Json channels_json(const SourceStatistics& statistics,
                   const std::vector<ChannelStatistics>& channels) {
  Json list = Json::array();
  for (size_t c = 0; c < channels.size(); ++c) {
    const ChannelStatistics& channel = channels[c];
    Json percentiles = Json::object();
    for (const double percent : kPercents)
      percentiles[fmt::format("{}", percent)] = channel.percentile(percent);
    list.push_back({{"channel", channel_name(statistics, c)},
                    {"mean", channel.mean},
                    {"std", channel.std},
                    {"min", channel.min},
                    {"max", channel.max},
                    {"percentiles", percentiles}});
  }
  return list;
}

Json targets_json(const std::vector<ChannelStatistics>& targets) {
  Json list = Json::array();
  for (const ChannelStatistics& target : targets)
    list.push_back(
        {{"mean", target.mean}, {"std", target.std}, {"min", target.min}, {"max", target.max}});
  return list;
}

/// Keys of JSON objects are text.
Json counts_json(const std::map<int64_t, int64_t>& counts) {
  Json json = Json::object();
  for (const auto& [key, n] : counts) json[fmt::format("{}", key)] = n;
  return json;
}

Json source_json(const SourceReport& report) {
  Json samples = Json::array();
  for (const SampleInfo& info : report.first)
    samples.push_back({{"path", info.path}, {"label", info.label}});
  const SourceStatistics& statistics = report.statistics;
  return {{"name", report.name},
          {"reader", report.reader},
          {"root", report.root},
          {"files", report.files},
          {"samples", report.samples},
          {"class_names", report.class_names},
          {"labels", counts_json(report.labels)},
          {"mask_pixels", counts_json(report.mask_pixels)},
          {"boxes", counts_json(report.boxes)},
          {"max_boxes", report.max_boxes},
          {"targets", targets_json(report.targets)},
          {"headers", report.headers},
          {"shapes", report.shapes},
          {"decoded", statistics.files},
          {"pixels", statistics.pixels},
          {"not_finite", statistics.not_finite},
          {"percentile_error", statistics.percentile_error},
          {"raw", channels_json(statistics, statistics.raw)},
          {"normalize", statistics.normalize},
          {"normalized", channels_json(statistics, statistics.normalized)},
          {"first", samples},
          {"broken", report.broken}};
}

}  // namespace

std::string to_text(const SourceReport& report) {
  std::string text =
      fmt::format("source {}: reader {}, {} samples{}, {} classes, root {}\n", report.name,
                  report.reader, report.samples,
                  report.samples == report.files ? "" : fmt::format(" of {} files", report.files),
                  report.class_names.size(), report.root);
  text += class_lines(report);
  for (const auto& [shape, files] : report.shapes)
    text += fmt::format("  shape {}: {} of {} read\n", shape, files, report.headers);
  text += channel_table(report.statistics);
  text += fmt::format(
      "  mean: [{:.4f}]  std: [{:.4f}]  (after normalize {}, over the pixels of {} files)\n",
      fmt::join(each(report.statistics.normalized, &ChannelStatistics::mean), ", "),
      fmt::join(each(report.statistics.normalized, &ChannelStatistics::std), ", "),
      report.statistics.normalize, report.statistics.files);
  for (const SampleInfo& info : report.first)
    text += fmt::format("  sample {} label {}\n", info.path, info.label);
  text += fmt::format("  broken files: {}\n", report.broken.size());
  for (const std::string& message : report.broken) text += fmt::format("    {}\n", message);
  return text;
}

std::string to_json(const std::vector<std::pair<std::string, SourceReport>>& reports) {
  Json json = Json::object();
  for (const auto& [section, report] : reports) json[section].push_back(source_json(report));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace vitrail::data
