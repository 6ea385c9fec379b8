#include "vitrail/train/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/text.h"
#include "vitrail/train/report_data.h"

namespace vitrail::train {

namespace {

constexpr size_t kCurvePoints = 400;

bool is_share(const std::string& metric) { return metric.find("accuracy") != std::string::npos; }

std::string metric_text(const std::string& name, double value) {
  if (!std::isfinite(value)) return "–";
  if (is_share(name)) return fmt::format("{:.2f} %", 100 * value);
  return name == "psnr" ? fmt::format("{:.2f} dB", value) : fmt::format("{:.4g}", value);
}

std::string metric_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

double last_finite(const Series& series) {
  for (auto value = series.y.rbegin(); value != series.y.rend(); ++value)
    if (std::isfinite(*value)) return *value;
  return NAN;
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return NAN;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

std::string plain_number(double value) {
  if (!std::isfinite(value)) return "–";
  if (std::abs(value) < 1000) return fmt::format("{:.4g}", value);
  return core::format_count(std::llround(value));
}

// --- sections of one run ---

std::vector<Headline> headlines(const ReportData& data) {
  std::vector<Headline> all;
  if (!data.splits.empty()) {
    const ReportData::Split& split = data.splits.front();
    size_t shown = 0;
    for (const auto& [name, value] : split.metrics) {
      if (name == "top5_accuracy" || shown++ >= 2) continue;
      all.push_back({is_share(name) ? metric_name(name) : "held-out " + metric_name(name),
                     metric_text(name, value),
                     fmt::format("{}, {} samples", split.name,
                                 plain_number(static_cast<double>(split.samples)))});
    }
  }
  const Curves& curves = data.curves;
  if (!curves.loss.x.empty()) {
    all.push_back(
        {"training loss", fmt::format("{:.4g}", last_finite(curves.loss)), "last logged step"});
    all.push_back({"steps", plain_number(curves.loss.x.back()), ""});
    all.push_back({"images per second", plain_number(median(curves.images_per_second.y)),
                   "median, all ranks"});
  }
  return all;
}

/// Training loss with its smoothed form, and the held-out loss.
Chart loss_chart(const ReportData& data) {
  Chart chart{"Loss", "step", {}, false, true};
  Series train = data.curves.loss;
  train.name = "training";
  const bool many = train.x.size() > 60;
  if (many) {
    Series raw = thinned(train, kCurvePoints);
    raw.faint = true;
    chart.series.push_back(raw);
    train = smoothed(train, static_cast<double>(train.x.size()) / 40);
  }
  chart.series.push_back(thinned(train, kCurvePoints));
  for (const Curves::Evaluation& evaluation : data.curves.evaluations) {
    if (evaluation.metric != "loss") continue;
    Series points = evaluation.points;
    points.name = data.splits.size() > 1 ? evaluation.split : "held out";
    points.color = static_cast<int>(chart.series.size()) % 6 + (many ? 0 : 1);
    points.dots = points.x.size() <= 60;
    chart.series.push_back(points);
  }
  return chart;
}

Chart simple_chart(const std::string& title, Series series, bool from_zero) {
  series.name = title;
  return {title, "step", {thinned(series, kCurvePoints)}, from_zero};
}

/// Metrics of held-out data that are drawn over the steps, those of one title in one chart.
struct Score {
  const char *metric, *title, *name;
  double factor;
};
constexpr Score kScores[] = {
    {"accuracy", "Held-out accuracy, %", "accuracy", 100},
    {"top5_accuracy", "Held-out accuracy, %", "in the first five", 100},
    {"dice", "Held-out Dice", "dice", 1},
    {"psnr", "Held-out PSNR, dB", "psnr", 1},
};

Chart& chart_called(const std::string& title, std::vector<Chart>& charts) {
  for (Chart& chart : charts)
    if (chart.title == title) return chart;
  return charts.emplace_back(Chart{title, "step", {}});
}

std::vector<Chart> score_charts(const ReportData& data) {
  std::vector<Chart> charts;
  for (const Score& score : kScores)
    for (const Curves::Evaluation& evaluation : data.curves.evaluations) {
      if (evaluation.metric != score.metric) continue;
      Chart& chart = chart_called(score.title, charts);
      Series points = evaluation.points;
      for (double& value : points.y) value *= score.factor;
      points.name = score.name;
      if (data.splits.size() > 1) points.name = evaluation.split + " " + points.name;
      points.color = static_cast<int>(chart.series.size()) % 6 + 1;
      points.dots = points.x.size() <= 60;
      chart.series.push_back(points);
    }
  return charts;
}

Chart wait_chart(const Curves& curves) {
  Series share = curves.data_wait_ms;
  share.name = "waiting for data";
  for (size_t i = 0; i < share.y.size(); ++i) share.y[i] *= 100 / curves.step_ms.y[i];
  Chart chart{"Waiting for data, % of the step", "step", {thinned(share, kCurvePoints)}, true};
  chart.y_max = 1;
  return chart;
}

std::string charts(const ReportData& data) {
  const Curves& curves = data.curves;
  std::string out = "<div class=\"charts\">\n" + line_chart(loss_chart(data));
  for (const Chart& chart : score_charts(data)) out += line_chart(chart);
  out += line_chart(simple_chart("Images per second", curves.images_per_second, true));
  out += line_chart(simple_chart("Learning rate", curves.lr, true));
  out += line_chart(simple_chart("Gradient norm", curves.grad_norm, true));
  out += line_chart(wait_chart(curves));
  return out + "</div>\n";
}

std::string metrics_section(const ReportData& data) {
  std::vector<std::vector<std::string>> table{{"split", "metric", "value", "samples", "seconds"}};
  for (const ReportData::Split& split : data.splits)
    for (const auto& [name, value] : split.metrics)
      table.push_back({split.name, metric_name(name), metric_text(name, value),
                       plain_number(static_cast<double>(split.samples)),
                       fmt::format("{:.2f}", split.seconds)});
  if (table.size() == 1) return "";
  return html_section(
      data.averaged_weights ? "Final metrics (moving average of the weights)" : "Final metrics",
      html_table(table));
}

std::string confusion_section(const ReportData& data) {
  std::string out;
  for (const ReportData::Split& split : data.splits)
    if (split.confusion.size() > 1)
      out += html_section(
          data.splits.size() > 1 ? "Confusion matrix: " + split.name : "Confusion matrix",
          confusion_map(split.confusion, split.class_names));
  return out;
}

std::string samples_section(const ReportData& data) {
  std::string out;
  std::vector<Verdict> right, wrong;
  for (const Verdict& verdict : data.verdicts) (verdict.right ? right : wrong).push_back(verdict);
  if (!wrong.empty()) out += html_section("Held-out samples: wrong", html_verdicts(wrong));
  if (!right.empty()) out += html_section("Held-out samples: right", html_verdicts(right));
  for (const PictureTable& table : data.pictures)
    if (!table.rows.empty()) out += html_section(table.heading, html_pictures(table));
  return out;
}

std::string history_section(const ReportData& data) {
  if (data.history.empty()) return "";
  std::vector<std::vector<std::string>> table{
      {"started (UTC)", "from step", "ranks", "host", "program"}};
  for (const HistoryEntry& entry : data.history)
    table.push_back({entry.time, std::to_string(entry.step), std::to_string(entry.ranks),
                     entry.host, entry.version});
  return html_section(data.history.size() > 1 ? "Starts and resumes" : "Start", html_table(table));
}

std::string subtitle(const ReportData& data) {
  std::string text =
      data.kind.empty() ? "run under way or stopped early" : "vitrail run, model " + data.kind;
  if (!data.history.empty()) text += ", started " + data.history.front().time;
  return text;
}

std::string page(const ReportData& data) {
  std::string body = html_headlines(headlines(data)) + charts(data) + metrics_section(data) +
                     samples_section(data) + confusion_section(data);
  if (!data.layout.empty())
    body += "<div class=\"columns\">" + html_section("Model and layout", html_rows(data.layout)) +
            html_section("Environment", html_rows(data.environment)) + "</div>\n";
  body += history_section(data) + html_details("Recipe, resolved", data.recipe);
  return html_page(data.name, subtitle(data), body);
}

// --- comparison ---

/// "section.key" -> text of the value, from the indented form in which recipes are written.
std::map<std::string, std::string> flat_recipe(const std::string& yaml) {
  std::map<std::string, std::string> flat;
  std::vector<std::pair<size_t, std::string>> open;
  std::istringstream lines(yaml);
  for (std::string line; std::getline(lines, line);) {
    line = line.substr(0, line.find("  #"));
    const size_t indent = line.find_first_not_of(" -"), colon = line.find(':');
    if (indent == std::string::npos || colon == std::string::npos || line[indent] == '#') continue;
    while (!open.empty() && open.back().first >= indent) open.pop_back();
    std::string key;
    for (const auto& [depth, name] : open) key += name + ".";
    const std::string name = line.substr(indent, colon - indent);
    const size_t value = line.find_first_not_of(' ', colon + 1);
    if (value == std::string::npos)
      open.emplace_back(indent, name);
    else
      flat[key + name] += line.substr(value) + " ";
  }
  return flat;
}

std::vector<std::vector<std::string>> differing_settings(const std::vector<ReportData>& runs) {
  std::vector<std::map<std::string, std::string>> flat;
  std::map<std::string, bool> keys;
  for (const ReportData& run : runs) {
    flat.push_back(flat_recipe(run.recipe));
    for (const auto& [key, value] : flat.back()) keys[key] = true;
  }
  std::vector<std::vector<std::string>> table{{"setting"}};
  for (const ReportData& run : runs) table.front().push_back(run.name);
  for (const auto& [key, unused] : keys) {
    std::vector<std::string> row{key};
    for (auto& recipe : flat) row.push_back(recipe.count(key) ? recipe[key] : "–");
    if (std::any_of(row.begin() + 2, row.end(),
                    [&](const std::string& value) { return value != row[1]; }))
      table.push_back(row);
  }
  return table;
}

std::vector<std::vector<std::string>> final_numbers(const std::vector<ReportData>& runs) {
  std::vector<std::vector<std::string>> table{{"run", "steps", "training loss", "images/s"}};
  std::vector<std::string> metrics;
  for (const ReportData& run : runs)
    for (const ReportData::Split& split : run.splits)
      for (const auto& [name, value] : split.metrics)
        if (std::find(metrics.begin(), metrics.end(), split.name + " " + name) == metrics.end())
          metrics.push_back(split.name + " " + name);
  for (const std::string& metric : metrics) table.front().push_back(metric_name(metric));
  for (const ReportData& run : runs) {
    const Curves& curves = run.curves;
    std::vector<std::string> row{run.name,
                                 curves.loss.x.empty() ? "0" : plain_number(curves.loss.x.back()),
                                 fmt::format("{:.4g}", last_finite(curves.loss)),
                                 plain_number(median(curves.images_per_second.y))};
    for (const std::string& metric : metrics) {
      row.push_back("–");
      for (const ReportData::Split& split : run.splits)
        for (const auto& [name, value] : split.metrics)
          if (split.name + " " + name == metric) row.back() = metric_text(name, value);
    }
    table.push_back(row);
  }
  return table;
}

using Pick = std::function<Series(const ReportData&)>;

Chart shared_chart(const std::string& title, const std::vector<ReportData>& runs, const Pick& pick,
                   bool from_zero, bool log_y) {
  Chart chart{title, "step", {}, from_zero, log_y};
  for (const ReportData& run : runs) {
    Series series = pick(run);
    if (series.x.empty()) continue;
    series.name = run.name;
    series.color = static_cast<int>(chart.series.size()) % 6 + 1;
    chart.series.push_back(thinned(series, kCurvePoints));
  }
  return chart;
}

/// The first split's values of a metric.
Series held_out(const ReportData& run, const std::string& metric, double factor) {
  for (const Curves::Evaluation& evaluation : run.curves.evaluations)
    if (evaluation.metric == metric) {
      Series series = evaluation.points;
      for (double& value : series.y) value *= factor;
      return series;
    }
  return {};
}

Series training_loss(const ReportData& run) {
  const Series& loss = run.curves.loss;
  return loss.x.size() > 60 ? smoothed(loss, static_cast<double>(loss.x.size()) / 40) : loss;
}

}  // namespace

std::string write_report(const std::string& folder, const std::string& output) {
  const std::string path =
      output.empty() ? (std::filesystem::path(folder) / "report.html").string() : output;
  core::write_file_atomic(path, page(load_report_data(folder)));
  return path;
}

std::string write_comparison(const std::vector<std::string>& folders, const std::string& output) {
  std::vector<ReportData> runs;
  for (const std::string& folder : folders) runs.push_back(load_report_data(folder));
  std::string body = html_section("Final numbers", html_table(final_numbers(runs))) +
                     "<div class=\"charts\">\n" +
                     line_chart(shared_chart("Training loss", runs, training_loss, false, true));
  std::vector<Chart> held{shared_chart(
      "Held-out loss", runs, [](const ReportData& run) { return held_out(run, "loss", 1); }, false,
      true)};
  for (const Score& score : kScores)
    if (std::string(score.metric) != "top5_accuracy")
      held.push_back(shared_chart(
          score.title, runs,
          [&score](const ReportData& run) { return held_out(run, score.metric, score.factor); },
          false, false));
  for (const Chart& chart : held)
    if (!chart.series.empty()) body += line_chart(chart);
  body += line_chart(shared_chart(
              "Images per second", runs,
              [](const ReportData& run) { return run.curves.images_per_second; }, true, false)) +
          "</div>\n" + html_section("Settings that differ", html_table(differing_settings(runs)));
  core::write_file_atomic(output,
                          html_page(fmt::format("{} runs compared", runs.size()), "vitrail", body));
  return output;
}

}  // namespace vitrail::train
