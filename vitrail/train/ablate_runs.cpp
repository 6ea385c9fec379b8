#include "vitrail/train/ablate_runs.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/models/model.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFailureFile = "failure.txt";

int64_t parameter_count(const config::Model& options) {
  int64_t count = 0;
  for (const nn::NamedTensor& parameter : models::make_model_shapes(options)->named_parameters())
    count += parameter.tensor.numel();
  return count;
}

config::Recipe recipe_of(const config::Study& study, const config::Overrides& set,
                         const std::string& what) {
  try {
    return config::load_recipe(study.base, set).recipe;
  } catch (const core::ConfigError& error) {
    throw core::ConfigError(fmt::format("[study] {} cannot run:\n{}", what, error.what()));
  }
}

StudyRun run_of(const config::Study& study, const config::StudyCell& cell, int64_t seed) {
  StudyRun run;
  run.seed = seed;
  run.name = fmt::format("{}/seed-{}", cell.name, seed);
  run.set = cell.set;
  const std::string output = (fs::path(study.output) / study.name / cell.name).string();
  run.folder = (fs::path(output) / fmt::format("seed-{}", seed)).string();
  // Quoted: names may look like numbers.
  for (const std::string& text :
       {fmt::format("run.seed={}", seed), fmt::format("run.output='{}'", output),
        fmt::format("run.name='seed-{}'", seed)})
    run.set.push_back(text);
  run.recipe = recipe_of(study, run.set, "the cell " + cell.name);
  return run;
}

void check_evaluations(const config::Study& study, const StudyRun& run) {
  for (const config::NamedChanges& evaluation : study.evaluations) {
    config::Overrides set = run.set;
    set.insert(set.end(), evaluation.set.begin(), evaluation.set.end());
    recipe_of(study, set, fmt::format("the evaluation {} of {}", evaluation.name, run.name));
  }
}

/// Lines of metrics.jsonl; a last one that was cut short is left out.
std::vector<Json> records_of(const std::string& folder) {
  std::vector<Json> records;
  std::ifstream file(fs::path(folder) / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    Json record = Json::parse(line, nullptr, false);
    if (record.is_object()) records.push_back(std::move(record));
  }
  return records;
}

double number(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_number() ? found->get<double>() : kNoNumber;
}

/// The study's metric of one evaluation's record; NaN when it is of another split or lacks it.
double metric_of(const config::Study& study, const Json& record, std::string& split) {
  const std::string of = record.value("split", "");
  if (split.empty()) split = of;
  const auto metrics = record.find("metrics");
  if (of != split || metrics == record.end() || !metrics->is_object()) return kNoNumber;
  if (!study.metric.empty()) return number(*metrics, study.metric.c_str());
  return metrics->empty() || !metrics->begin()->is_number() ? kNoNumber
                                                            : metrics->begin()->get<double>();
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return kNoNumber;
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// Sums over the logged steps; the time of a line is the mean of the steps since the line before.
struct StepSums {
  double steps = 0, epochs = kNoNumber, seconds = 0, loss = kNoNumber, memory = 0;
  std::vector<double> rates;

  void add(const Json& record) {
    const double step = number(record, "step");
    if (!(step > steps)) return;
    seconds += (step - steps) * number(record, "step_ms") / 1000.0;
    steps = step;
    epochs = number(record, "epoch");
    loss = number(record, "loss");
    memory = std::max(memory, number(record, "peak_memory_gib"));
    rates.push_back(number(record, "images_per_second"));
  }
};

bool is_better(const config::Study& study, double value, double than) {
  return std::isnan(than) || (study.highest ? value > than : value < than);
}

void read_metrics(const config::Study& study, const StudyRun& run, RunNumbers& numbers) {
  StepSums sums;
  std::string split = study.split;
  double evaluated_at = -1.0;
  numbers.eval_seconds = 0.0;
  for (const Json& record : records_of(run.folder)) {
    if (!record.contains("split")) {
      sums.add(record);
      numbers.loss.x.push_back(number(record, "epoch"));
      numbers.loss.y.push_back(number(record, "loss"));
      continue;
    }
    numbers.eval_seconds += std::max(0.0, number(record, "seconds"));
    const double value = metric_of(study, record, split);
    if (!std::isfinite(value)) continue;
    numbers.last = value;
    evaluated_at = number(record, "step");
    if (is_better(study, value, numbers.best))
      numbers.best = value, numbers.best_epoch = number(record, "epoch");
    numbers.curve.x.push_back(number(record, "epoch"));
    numbers.curve.y.push_back(value);
  }
  if (sums.steps == 0) return;
  numbers.state = RunNumbers::State::partial;
  numbers.steps = sums.steps, numbers.epochs = sums.epochs;
  numbers.train_loss = sums.loss, numbers.train_seconds = sums.seconds;
  numbers.images_per_second = median(sums.rates), numbers.peak_memory_gib = sums.memory;
  const config::Train& train = run.recipe.train;
  const bool is_at_end = train.steps
                             ? sums.steps >= static_cast<double>(*train.steps)
                             : sums.epochs >= static_cast<double>(train.epochs.value_or(1)) - 1e-9;
  // The files after the last evaluation (weights, report) are written by then too, or a further start writes them.
  if (is_at_end && evaluated_at == sums.steps &&
      fs::exists(fs::path(run.folder) / "weights.safetensors"))
    numbers.state = RunNumbers::State::done, numbers.is_trained = true;
}

/// Whether the run in the folder has the settings that the study asks for; threads change nothing.
bool has_recipe(const StudyRun& run) {
  const std::string path = (fs::path(run.folder) / "recipe.yaml").string();
  try {
    config::Recipe stored = config::load_recipe(path, {}).recipe;
    stored.run.threads = run.recipe.run.threads;
    return stored == run.recipe;
  } catch (const core::Error&) {
    return false;
  }
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

double read_evaluation(const config::Study& study, const StudyRun& run,
                       const config::NamedChanges& evaluation) {
  const Json kept = Json::parse(text_of(evaluation_path(run, evaluation.name)), nullptr, false);
  if (!kept.is_object() || kept.value("set", Json::array()) != Json(evaluation.set))
    return kNoNumber;
  std::string split = study.split;
  for (const Json& record : kept.value("results", Json::array()))
    if (const double value = metric_of(study, record, split); std::isfinite(value)) return value;
  return kNoNumber;
}

}  // namespace

StudyPlan plan_study(const config::Study& study) {
  StudyPlan plan;
  plan.study = study;
  plan.cells = config::cells_of(study);
  plan.folder = (fs::path(study.output) / study.name).string();
  for (size_t c = 0; c < plan.cells.size(); ++c) {
    for (const int64_t seed : study.seeds) {
      plan.runs.push_back(run_of(study, plan.cells[c], seed));
      plan.runs.back().cell = c;
    }
    config::require_training(plan.runs.back().recipe);
    check_evaluations(study, plan.runs.back());
    plan.parameters.push_back(parameter_count(plan.runs.back().recipe.model));
  }
  return plan;
}

RunNumbers read_run(const config::Study& study, const StudyRun& run) {
  RunNumbers numbers;
  numbers.evaluations.assign(study.evaluations.size(), kNoNumber);
  std::error_code error;
  if (!fs::exists(fs::path(run.folder) / "recipe.yaml", error)) {
    numbers.failure = text_of(fs::path(run.folder) / kFailureFile);
  } else if (!has_recipe(run)) {
    numbers.is_other_recipe = true;
  } else {
    read_metrics(study, run, numbers);
    numbers.failure = text_of(fs::path(run.folder) / kFailureFile);
    if (numbers.state == RunNumbers::State::done)
      for (size_t e = 0; e < study.evaluations.size(); ++e)
        numbers.evaluations[e] = read_evaluation(study, run, study.evaluations[e]);
  }
  const bool lacks_evaluations =
      std::ranges::any_of(numbers.evaluations, [](double value) { return !std::isfinite(value); });
  if (numbers.state == RunNumbers::State::done && lacks_evaluations)
    numbers.state = RunNumbers::State::partial;
  if (!numbers.failure.empty()) numbers.state = RunNumbers::State::failed;
  return numbers;
}

const char* word(RunNumbers::State state) {
  switch (state) {
    case RunNumbers::State::missing:
      return "missing";
    case RunNumbers::State::partial:
      return "partial";
    case RunNumbers::State::done:
      return "done";
    case RunNumbers::State::failed:
      return "failed";
  }
  return "";
}

std::string evaluation_path(const StudyRun& run, const std::string& evaluation) {
  return (fs::path(run.folder) / "evaluations" / (evaluation + ".json")).string();
}

void keep_evaluation(const StudyRun& run, const config::NamedChanges& evaluation,
                     const std::string& output) {
  Json results = Json::array();
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    Json record = Json::parse(line, nullptr, false);
    if (record.is_object() && record.contains("split")) results.push_back(std::move(record));
  }
  const std::string path = evaluation_path(run, evaluation.name);
  core::make_directories(fs::path(path).parent_path().string());
  core::write_file_atomic(path, Json{{"set", evaluation.set}, {"results", results}}.dump(1) + "\n");
}

void note_failure(const StudyRun& run, const std::string& text) {
  const fs::path path = fs::path(run.folder) / kFailureFile;
  std::error_code error;
  if (text.empty())
    fs::remove(path, error);
  else
    core::write_file_atomic(path.string(), text);
}

}  // namespace vitrail::train
