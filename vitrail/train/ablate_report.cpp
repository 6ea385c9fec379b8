#include "vitrail/train/ablate_report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/text.h"
#include "vitrail/train/report_html.h"
#include "vitrail/train/report_svg.h"

namespace vitrail::train {

namespace {

constexpr size_t kMostCharts = 24;  // more cells than this are read from the table
constexpr size_t kCurvePoints = 300;

/// Accuracies are shown in percent, everything else as it is.
class MetricText {
 public:
  explicit MetricText(const StudyPlan& plan)
      : name_(metric_word(plan)),
        factor_(name_.ends_with("accuracy") ? 100.0 : 1.0),
        unit_(factor_ == 100.0 ? " %" : "") {}

  double factor() const { return factor_; }
  std::string title() const { return name_ + unit_; }
  std::string value(const Summary& summary) const {
    if (summary.count == 0) return "–";
    const std::string mean = factor_ == 100.0 ? fmt::format("{:.2f}", factor_ * summary.mean)
                                              : fmt::format("{:.4g}", summary.mean);
    return mean + spread(summary);
  }
  std::string difference(const Summary& summary) const {
    if (summary.count == 0) return "–";
    const std::string mean = factor_ == 100.0 ? fmt::format("{:+.2f}", factor_ * summary.mean)
                                              : fmt::format("{:+.4g}", summary.mean);
    return mean + spread(summary);
  }

 private:
  std::string spread(const Summary& summary) const {
    if (!std::isfinite(summary.spread)) return "";
    return factor_ == 100.0 ? fmt::format(" ± {:.2f}", factor_ * summary.spread)
                            : fmt::format(" ± {:.2g}", summary.spread);
  }

  std::string name_;
  double factor_;
  std::string unit_;
};

std::string plain(const Summary& summary, const char* kind) {
  if (summary.count == 0) return "–";
  if (std::string_view(kind) == "time") return core::format_duration(summary.mean);
  return std::string_view(kind) == "rate" ? core::format_count(std::llround(summary.mean))
                                          : fmt::format("{:.2f}", summary.mean);
}

/// Rows of the tables: of a large study those cells alone that have run.
std::vector<const CellSummary*> shown_cells(const StudyResults& results) {
  std::vector<const CellSummary*> shown;
  for (const CellSummary& cell : results.cells)
    if (results.cells.size() <= kMostCharts || cell.done + cell.failed > 0) shown.push_back(&cell);
  return shown;
}

std::string runs_text(const CellSummary& cell) {
  std::string text = fmt::format("{} of {}", cell.done, cell.planned);
  return cell.failed > 0 ? text + fmt::format(", {} failed", cell.failed) : text;
}

std::vector<std::vector<std::string>> main_table(const StudyPlan& plan,
                                                 const StudyResults& results) {
  const MetricText metric(plan);
  std::vector<std::vector<std::string>> table{
      {"cell", "parameters", metric.title() + ", last", "best epoch's", "last, to control",
       "best, to control", "control", "time", "images/s", "GiB", "runs"}};
  for (const CellSummary* row : shown_cells(results)) {
    const CellSummary& cell = *row;
    const config::StudyCell& of = plan.cells[cell.cell];
    table.push_back({of.name, core::format_count(cell.parameters), metric.value(cell.last),
                     metric.value(cell.best), metric.difference(cell.to_control),
                     metric.difference(cell.best_to_control), of.control.empty() ? "–" : of.control,
                     plain(cell.train_seconds, "time"), plain(cell.images_per_second, "rate"),
                     plain(cell.peak_memory_gib, "memory"), runs_text(cell)});
  }
  return table;
}

std::vector<std::vector<std::string>> evaluation_table(const StudyPlan& plan,
                                                       const StudyResults& results) {
  const MetricText metric(plan);
  std::vector<std::vector<std::string>> table{{"cell", "as trained"}};
  for (const config::NamedChanges& evaluation : plan.study.evaluations)
    table.front().push_back(evaluation.name);
  for (const CellSummary* cell : shown_cells(results)) {
    std::vector<std::string> row{plan.cells[cell->cell].name, metric.value(cell->last)};
    for (const Summary& evaluation : cell->evaluations) row.push_back(metric.value(evaluation));
    table.push_back(std::move(row));
  }
  return table;
}

/// Mean and spread of the difference, for every cell with a control.
std::string difference_chart(const StudyPlan& plan, const StudyResults& results) {
  constexpr double kWidth = 1040, kLeft = 330, kRight = 60, kRow = 26, kTop = 30;
  const MetricText metric(plan);
  std::vector<const CellSummary*> rows;
  double low = 0.0, high = 0.0;
  for (const CellSummary& cell : results.cells) {
    if (cell.to_control.count == 0) continue;
    rows.push_back(&cell);
    const double reach = std::isfinite(cell.to_control.spread) ? cell.to_control.spread : 0.0;
    low = std::min(low, metric.factor() * (cell.to_control.mean - reach));
    high = std::max(high, metric.factor() * (cell.to_control.mean + reach));
  }
  if (rows.empty()) return "";
  const double margin = std::max(1e-9, 0.05 * (high - low));
  low -= margin, high += margin;
  const auto at = [&](double value) {
    return kLeft + (value - low) / (high - low) * (kWidth - kLeft - kRight);
  };
  const double bottom = kTop + kRow * static_cast<double>(rows.size());
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"differences\">\n", kWidth, bottom + 26);
  for (const double tick : round_ticks(low, high, 8))
    out += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/><text "
        "x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
        at(tick), kTop, bottom, bottom + 18, short_number(tick));
  out += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"var(--ink)\"/>\n", at(0),
      kTop, bottom);
  for (size_t r = 0; r < rows.size(); ++r) {
    const Summary& difference = rows[r]->to_control;
    const double y = kTop + kRow * (static_cast<double>(r) + 0.5);
    const double mean = metric.factor() * difference.mean;
    const double reach =
        std::isfinite(difference.spread) ? metric.factor() * difference.spread : 0.0;
    const bool is_better = (mean > 0) == plan.study.highest;
    const char* color = is_better ? "var(--good)" : "var(--bad)";
    out += fmt::format(
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text><line x1=\"{:.1f}\" "
        "x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"3\" "
        "stroke-opacity=\".45\"/><circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\"/>\n",
        kLeft - 12, y + 4, escape_html(plan.cells[rows[r]->cell].name), at(mean - reach),
        at(mean + reach), y, y, color, at(mean), y, color);
  }
  return out + "</svg>\n";
}

/// Mean over the runs that have a value at that place.
Series mean_of(const std::vector<const Series*>& all, const std::string& name, int color,
               double factor) {
  std::map<double, std::pair<double, int>> sums;
  for (const Series* one : all)
    for (size_t i = 0; i < one->x.size(); ++i)
      if (std::isfinite(one->y[i])) {
        sums[one->x[i]].first += one->y[i];
        ++sums[one->x[i]].second;
      }
  Series mean{name, {}, {}, color};
  for (const auto& [x, sum] : sums) {
    mean.x.push_back(x);
    mean.y.push_back(factor * sum.first / sum.second);
  }
  return thinned(mean, kCurvePoints);
}

std::vector<const Series*> curves_of(const StudyPlan& plan, const StudyResults& results,
                                     const std::string& cell, Series RunNumbers::*curve) {
  std::vector<const Series*> found;
  for (size_t r = 0; r < plan.runs.size(); ++r)
    if (plan.cells[plan.runs[r].cell].name == cell && !(results.runs[r].*curve).x.empty())
      found.push_back(&(results.runs[r].*curve));
  return found;
}

/// The cell's mean, its seeds pale behind it, and its control's mean.
std::string cell_chart(const StudyPlan& plan, const StudyResults& results,
                       const config::StudyCell& cell, const std::string& title,
                       Series RunNumbers::*curve, double factor) {
  const std::vector<const Series*> own = curves_of(plan, results, cell.name, curve);
  if (own.empty()) return "";
  Chart chart{title, "epoch", {}, false, curve == &RunNumbers::loss};
  for (const Series* one : own) {
    Series seed = thinned(*one, kCurvePoints);
    for (double& value : seed.y) value *= factor;
    seed.faint = true;
    chart.series.push_back(std::move(seed));
  }
  chart.series.push_back(mean_of(own, "this cell", 1, factor));
  if (!cell.control.empty())
    if (const auto control = curves_of(plan, results, cell.control, curve); !control.empty())
      chart.series.push_back(mean_of(control, "control", 2, factor));
  return line_chart(chart);
}

std::string charts(const StudyPlan& plan, const StudyResults& results) {
  const MetricText metric(plan);
  std::string out = "<div class=\"charts\">\n";
  size_t shown = 0;
  for (const config::StudyCell& cell : plan.cells) {
    if (curves_of(plan, results, cell.name, &RunNumbers::loss).empty()) continue;
    if (shown++ == kMostCharts) break;
    out += cell_chart(plan, results, cell, cell.name + ", " + metric.title(), &RunNumbers::curve,
                      metric.factor());
    out += cell_chart(plan, results, cell, cell.name + ", training loss", &RunNumbers::loss, 1.0);
  }
  return out + "</div>\n";
}

std::string failures(const StudyPlan& plan, const StudyResults& results) {
  Rows rows;
  for (size_t r = 0; r < plan.runs.size(); ++r)
    if (results.runs[r].state == RunNumbers::State::failed)
      rows.emplace_back(plan.runs[r].name, results.runs[r].failure);
  return rows.empty() ? "" : html_section("Failed runs", html_rows(rows));
}

std::string changes(const StudyPlan& plan) {
  Rows rows{{"base", plan.study.base}};
  const auto text = [](const config::Overrides& set) {
    return set.empty() ? std::string("no change") : fmt::format("{}", fmt::join(set, "  "));
  };
  if (!plan.study.set.empty()) rows.emplace_back("every run", text(plan.study.set));
  for (const config::StudyFactor& factor : plan.study.factors)
    for (const config::NamedChanges& level : factor.levels)
      rows.emplace_back(factor.name + ": " + level.name, text(level.set));
  for (const config::NamedChanges& cell : plan.study.cells)
    rows.emplace_back("cell " + cell.name, text(cell.set));
  for (const config::NamedChanges& evaluation : plan.study.evaluations)
    rows.emplace_back("evaluation " + evaluation.name, text(evaluation.set));
  return html_section("What changes", html_rows(rows));
}

std::string meaning() {
  return html_section(
      "What the columns say",
      html_rows({{"last", "metric at the last evaluation; mean over seeds ± standard deviation"},
                 {"best epoch's",
                  "best over all evaluations of a run, chosen on the same data: "
                  "flattering, never to be set beside another's last"},
                 {"to control",
                  "difference of runs with the same seed: mean ± standard deviation "
                  "of these differences, which with few seeds is itself rough"},
                 {"time", "of all training steps, without start and evaluations"},
                 {"images/s", "median of the logged steps"},
                 {"parameters", "that are trained; a control of another size shows here"}}));
}

std::vector<Headline> headlines(const StudyPlan& plan, const StudyResults& results) {
  const MetricText metric(plan);
  int64_t done = 0;
  double seconds = 0;
  const CellSummary* best = nullptr;
  for (const CellSummary& cell : results.cells) {
    done += cell.done;
    if (cell.last.count == 0) continue;
    if (std::isfinite(cell.train_seconds.mean))
      seconds += cell.train_seconds.mean * static_cast<double>(cell.done);
    const bool is_better = !best || (plan.study.highest ? cell.last.mean > best->last.mean
                                                        : cell.last.mean < best->last.mean);
    if (is_better) best = &cell;
  }
  std::vector<Headline> shown{
      {"runs done", fmt::format("{} of {}", done, plan.runs.size()),
       fmt::format("{} cells, {} seeds", plan.cells.size(), plan.study.seeds.size())}};
  if (best)
    shown.push_back({"highest mean of last " + metric.title(), metric.value(best->last),
                     plan.cells[best->cell].name});
  if (best && !plan.study.highest) shown.back().label = "lowest mean of last " + metric.title();
  shown.push_back({"training time", core::format_duration(seconds), "sum over the runs"});
  return shown;
}

}  // namespace

std::string study_page(const StudyPlan& plan, const StudyResults& results) {
  const size_t shown = shown_cells(results).size();
  const std::string rest =
      shown == plan.cells.size()
          ? ""
          : fmt::format("<p class=\"subtitle\">{} cells have not run and are left out</p>\n",
                        plan.cells.size() - shown);
  std::string body = html_headlines(headlines(plan, results)) +
                     html_section("Results", html_table(main_table(plan, results)) + rest);
  if (const std::string chart = difference_chart(plan, results); !chart.empty())
    body += html_section(
        "Difference to the control at the last evaluation, mean and spread over seeds", chart);
  if (!plan.study.evaluations.empty())
    body += html_section("Further evaluations of the same weights",
                         html_table(evaluation_table(plan, results)));
  body += failures(plan, results) + charts(plan, results) + meaning() + changes(plan);
  return html_page(plan.study.name, "vitrail ablate", body);
}

}  // namespace vitrail::train
