#include "vitrail/train/ablate_table.h"

#include <cmath>
#include <filesystem>
#include <map>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using Json = nlohmann::ordered_json;

/// RFC 4180.
std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

/// All digits, so that the table holds what the runs' own files hold.
std::string text_of(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }

std::string one_line(const std::string& text) {
  std::string line = text.substr(0, text.find_last_not_of('\n') + 1);
  for (char& c : line)
    if (c == '\n') c = ' ';
  return line;
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_json(const Summary& summary) {
  return {
      {"count", summary.count}, {"mean", number(summary.mean)}, {"spread", number(summary.spread)}};
}

/// Differences of runs with the same seed; both done.
Summary paired(const StudyPlan& plan, const std::vector<RunNumbers>& runs, size_t cell,
               double RunNumbers::*value) {
  std::map<int64_t, double> of_control;
  const std::string& control = plan.cells[cell].control;
  if (control.empty()) return {};
  for (size_t r = 0; r < runs.size(); ++r)
    if (plan.cells[plan.runs[r].cell].name == control && runs[r].state == RunNumbers::State::done)
      of_control[plan.runs[r].seed] = runs[r].*value;
  std::vector<double> differences;
  for (size_t r = 0; r < runs.size(); ++r)
    if (plan.runs[r].cell == cell && runs[r].state == RunNumbers::State::done &&
        of_control.contains(plan.runs[r].seed))
      differences.push_back(runs[r].*value - of_control[plan.runs[r].seed]);
  return summary_of(differences);
}

CellSummary summarise(const StudyPlan& plan, const std::vector<RunNumbers>& runs, size_t cell) {
  CellSummary summary;
  summary.cell = cell, summary.parameters = plan.parameters[cell];
  std::vector<RunNumbers> done;
  for (size_t r = 0; r < runs.size(); ++r) {
    if (plan.runs[r].cell != cell) continue;
    ++summary.planned;
    summary.failed += runs[r].state == RunNumbers::State::failed;
    if (runs[r].state == RunNumbers::State::done) done.push_back(runs[r]);
  }
  summary.done = static_cast<int64_t>(done.size());
  const auto over_seeds = [&](double RunNumbers::*value) {
    std::vector<double> values;
    for (const RunNumbers& run : done) values.push_back(run.*value);
    return summary_of(values);
  };
  summary.last = over_seeds(&RunNumbers::last);
  summary.best = over_seeds(&RunNumbers::best);
  summary.train_seconds = over_seeds(&RunNumbers::train_seconds);
  summary.images_per_second = over_seeds(&RunNumbers::images_per_second);
  summary.peak_memory_gib = over_seeds(&RunNumbers::peak_memory_gib);
  for (size_t e = 0; e < plan.study.evaluations.size(); ++e) {
    std::vector<double> values;
    for (const RunNumbers& run : done) values.push_back(run.evaluations[e]);
    summary.evaluations.push_back(summary_of(values));
  }
  summary.to_control = paired(plan, runs, cell, &RunNumbers::last);
  summary.best_to_control = paired(plan, runs, cell, &RunNumbers::best);
  return summary;
}

std::vector<std::string> header_of(const StudyPlan& plan) {
  std::vector<std::string> header{"cell"};
  for (const config::StudyFactor& factor : plan.study.factors) header.push_back(factor.name);
  const std::string metric = metric_word(plan);
  for (const char* column : {"seed", "state", "parameters", "epochs", "steps"})
    header.emplace_back(column);
  header.push_back(metric + "_last");
  header.push_back(metric + "_best");
  for (const char* column : {"best_epoch", "train_loss", "train_seconds", "eval_seconds",
                             "images_per_second", "peak_memory_gib"})
    header.emplace_back(column);
  for (const config::NamedChanges& evaluation : plan.study.evaluations)
    header.push_back(metric + "@" + evaluation.name);
  header.emplace_back("folder");
  header.emplace_back("failure");
  return header;
}

std::vector<std::string> line_of(const StudyPlan& plan, const StudyRun& run,
                                 const RunNumbers& numbers) {
  const config::StudyCell& cell = plan.cells[run.cell];
  std::vector<std::string> line{cell.name};
  for (size_t f = 0; f < plan.study.factors.size(); ++f)
    line.push_back(f < cell.levels.size() ? cell.levels[f] : "");
  line.push_back(fmt::format("{}", run.seed));
  line.emplace_back(word(numbers.state));
  line.push_back(fmt::format("{}", plan.parameters[run.cell]));
  for (const double value :
       {numbers.epochs, numbers.steps, numbers.last, numbers.best, numbers.best_epoch,
        numbers.train_loss, numbers.train_seconds, numbers.eval_seconds, numbers.images_per_second,
        numbers.peak_memory_gib})
    line.push_back(text_of(value));
  for (const double value : numbers.evaluations) line.push_back(text_of(value));
  line.push_back(run.folder);
  line.push_back(one_line(numbers.failure));
  return line;
}

std::string joined(const std::vector<std::string>& columns) {
  std::string line;
  for (const std::string& column : columns) line += (line.empty() ? "" : ",") + quoted(column);
  return line + "\r\n";
}

Json run_json(const StudyPlan& plan, const StudyRun& run, const RunNumbers& numbers) {
  Json evaluations = Json::object();
  for (size_t e = 0; e < numbers.evaluations.size(); ++e)
    evaluations[plan.study.evaluations[e].name] = number(numbers.evaluations[e]);
  return {{"seed", run.seed},
          {"folder", run.folder},
          {"state", word(numbers.state)},
          {"failure", one_line(numbers.failure)},
          {"last", number(numbers.last)},
          {"best", number(numbers.best)},
          {"best_epoch", number(numbers.best_epoch)},
          {"epochs", number(numbers.epochs)},
          {"steps", number(numbers.steps)},
          {"train_loss", number(numbers.train_loss)},
          {"train_seconds", number(numbers.train_seconds)},
          {"eval_seconds", number(numbers.eval_seconds)},
          {"images_per_second", number(numbers.images_per_second)},
          {"peak_memory_gib", number(numbers.peak_memory_gib)},
          {"evaluations", evaluations}};
}

Json cell_json(const StudyPlan& plan, const StudyResults& results, const CellSummary& summary) {
  const config::StudyCell& cell = plan.cells[summary.cell];
  Json levels = Json::object(), evaluations = Json::object(), runs = Json::array();
  for (size_t f = 0; f < cell.levels.size(); ++f)
    levels[plan.study.factors[f].name] = cell.levels[f];
  for (size_t e = 0; e < summary.evaluations.size(); ++e)
    evaluations[plan.study.evaluations[e].name] = to_json(summary.evaluations[e]);
  for (size_t r = 0; r < plan.runs.size(); ++r)
    if (plan.runs[r].cell == summary.cell)
      runs.push_back(run_json(plan, plan.runs[r], results.runs[r]));
  return {{"name", cell.name},
          {"levels", levels},
          {"set", cell.set},
          {"control", cell.control},
          {"parameters", summary.parameters},
          {"last", to_json(summary.last)},
          {"best", to_json(summary.best)},
          {"difference_to_control", to_json(summary.to_control)},
          {"best_difference_to_control", to_json(summary.best_to_control)},
          {"train_seconds", to_json(summary.train_seconds)},
          {"images_per_second", to_json(summary.images_per_second)},
          {"peak_memory_gib", to_json(summary.peak_memory_gib)},
          {"evaluations", evaluations},
          {"runs", runs}};
}

}  // namespace

Summary summary_of(const std::vector<double>& values) {
  Summary summary;
  double sum = 0.0;
  for (const double value : values)
    if (std::isfinite(value)) ++summary.count, sum += value;
  if (summary.count == 0) return summary;
  summary.mean = sum / static_cast<double>(summary.count);
  if (summary.count == 1) return summary;
  double squares = 0.0;
  for (const double value : values)
    if (std::isfinite(value)) squares += (value - summary.mean) * (value - summary.mean);
  summary.spread = std::sqrt(squares / static_cast<double>(summary.count - 1));
  return summary;
}

StudyResults read_results(const StudyPlan& plan) {
  StudyResults results;
  for (const StudyRun& run : plan.runs) results.runs.push_back(read_run(plan.study, run));
  for (size_t c = 0; c < plan.cells.size(); ++c)
    results.cells.push_back(summarise(plan, results.runs, c));
  return results;
}

std::string metric_word(const StudyPlan& plan) {
  return plan.study.metric.empty() ? "metric" : plan.study.metric;
}

std::string results_csv(const StudyPlan& plan, const StudyResults& results) {
  std::string text = joined(header_of(plan));
  for (size_t r = 0; r < plan.runs.size(); ++r)
    text += joined(line_of(plan, plan.runs[r], results.runs[r]));
  return text;
}

std::string results_json(const StudyPlan& plan, const StudyResults& results) {
  Json cells = Json::array();
  for (const CellSummary& summary : results.cells)
    cells.push_back(cell_json(plan, results, summary));
  return Json{{"format", 1},
              {"study", plan.study.name},
              {"base", plan.study.base},
              {"metric", metric_word(plan)},
              {"split", plan.study.split},
              {"goal", plan.study.highest ? "highest" : "lowest"},
              {"seeds", plan.study.seeds},
              {"cells", cells}}
             .dump(1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

}  // namespace vitrail::train
