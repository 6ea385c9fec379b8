#include "vitrail/config/rules.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"
#include "vitrail/core/error.h"

namespace vitrail::config {

namespace {

/// Steps and epochs are 32-bit places of random draws (core/philox.h).
constexpr int64_t kMaxSteps = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxBatch = int64_t{1} << 24;
constexpr int64_t kMaxRanks = int64_t{1} << 20;

bool is_folder_name(const std::string& name) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7F; };
  return !name.empty() && name != "." && name != ".." && name.size() <= 200 &&
         name.find('/') == std::string::npos && std::none_of(name.begin(), name.end(), is_control);
}

void check_run(const Run& run, RuleBook& rules) {
  if (!is_folder_name(run.name))
    rules.add(
        {"run.name"},
        fmt::format(
            "run.name must be usable as a folder name (no '/', at most 200 bytes) but is '{}'",
            printable(run.name)));
  if (run.output.empty()) rules.add({"run.output"}, "run.output must name a folder but is empty");
  rules.within("run.seed", run.seed, 0, std::numeric_limits<int64_t>::max());
  rules.within("run.threads", run.threads, 0, 4096);
}

void check_ranks_per_source(const Data& data, RuleBook& rules) {
  const std::vector<int64_t>& ranks = data.ranks_per_source;
  if (ranks.empty()) return;
  if (!(data.mixing == "rank"))
    rules.add({"data.ranks_per_source", "data.mixing"},
              fmt::format("data.ranks_per_source needs data.mixing rank but it is {}",
                          data.mixing.value));
  if (ranks.size() != data.sources.size())
    rules.add({"data.ranks_per_source", "data.sources"},
              fmt::format("data.ranks_per_source must hold a number for each of {} sources but "
                          "holds {}",
                          data.sources.size(), ranks.size()));
  for (size_t i = 0; i < ranks.size(); ++i)
    rules.within(fmt::format("data.ranks_per_source[{}]", i), ranks[i], 1, kMaxRanks);
}

void check_data(const Data& data, const Train& train, RuleBook& rules) {
  rules.within("data.workers", data.workers, 0, 1024);
  rules.within("data.prefetch", data.prefetch, 0, 4096);
  rules.at_least("data.max_broken", data.max_broken, 0);
  rules.at_least("data.read_timeout_s", data.read_timeout_s, 0);
  rules.within("data.read_retries", data.read_retries, 0, 100);
  rules.at_least("data.cache_gib", data.cache_gib, 0);
  check_ranks_per_source(data, rules);
  const bool batch = rules.within("data.batch_size", data.batch_size, 1, kMaxBatch);
  const bool micro = rules.within("train.micro_batches", train.micro_batches, 1, kMaxBatch);
  if (batch && micro && data.batch_size % train.micro_batches != 0)
    rules.add(
        {"data.batch_size", "train.micro_batches"},
        fmt::format("data.batch_size must be a multiple of train.micro_batches but got {} and {}",
                    data.batch_size, train.micro_batches));
}

void check_optimizer(const Optimizer& optimizer, RuleBook& rules) {
  rules.above("train.optimizer.lr", optimizer.lr, 0);
  rules.above("train.optimizer.eps", optimizer.eps, 0);
  rules.at_least("train.optimizer.weight_decay", optimizer.weight_decay, 0);
  rules.rate("train.optimizer.momentum", optimizer.momentum);
  if (optimizer.layer_decay && (*optimizer.layer_decay <= 0 || *optimizer.layer_decay > 1))
    rules.add({"train.optimizer.layer_decay"},
              fmt::format("train.optimizer.layer_decay must be above 0 and at most 1 but got {}",
                          *optimizer.layer_decay));
  if (optimizer.betas.size() != 2)
    rules.add({"train.optimizer.betas"},
              fmt::format("train.optimizer.betas must hold 2 numbers but holds {}",
                          optimizer.betas.size()));
  else
    for (size_t i = 0; i < 2; ++i)
      rules.rate(fmt::format("train.optimizer.betas[{}]", i), optimizer.betas[i]);
}

/// Moments of two or one bytes: kernels for adamw on the device alone.
void check_state(const Optimizer& optimizer, const Parallel& parallel, RuleBook& rules) {
  if (optimizer.state == "fp32") return;
  const std::string& state = optimizer.state.value;
  if (!(optimizer.kind == "adamw"))
    rules.add({"train.optimizer.state", "train.optimizer.kind"},
              fmt::format("train.optimizer.state {} is for the moments of adamw but "
                          "train.optimizer.kind is {}; set state to fp32",
                          state, optimizer.kind.value));
  if (!(parallel.offload == "none"))
    rules.add({"train.optimizer.state", "parallel.offload"},
              fmt::format("train.optimizer.state {} is for moments on the device but "
                          "parallel.offload is {}; set one of them back",
                          state, parallel.offload.value));
}

void check_schedule(const Schedule& schedule, double lr, RuleBook& rules) {
  rules.within("train.schedule.warmup_steps", schedule.warmup_steps, 0, kMaxSteps);
  const auto not_above_lr = [&](const char* key, double value) {
    const std::string path = fmt::format("train.schedule.{}", key);
    if (rules.at_least(path, value, 0) && value > lr)
      rules.add(
          {path, "train.optimizer.lr"},
          fmt::format("{} must be at most train.optimizer.lr but got {} and {}", path, value, lr));
  };
  not_above_lr("warmup_start_lr", schedule.warmup_start_lr);
  not_above_lr("min_lr", schedule.min_lr);
}

void check_train(const Train& train, RuleBook& rules) {
  if (train.epochs) rules.within("train.epochs", *train.epochs, 1, kMaxSteps);
  if (train.steps) rules.within("train.steps", *train.steps, 1, kMaxSteps);
  if (train.epochs && train.steps)
    rules.add(
        {"train.epochs", "train.steps"},
        fmt::format(
            "train.epochs and train.steps exclude each other but got {} and {}; set one to null",
            *train.epochs, *train.steps));
  rules.at_least("train.clip_grad_norm", train.clip_grad_norm, 0);
  rules.at_least("train.tune_seconds", train.tune_seconds, 0);
  if (train.ema_decay) rules.rate("train.ema_decay", *train.ema_decay);
  check_optimizer(train.optimizer, rules);
  check_schedule(train.schedule, train.optimizer.lr, rules);
  check_schedule_form(train.schedule, rules);
  check_loss_scale(train, rules);
}

void check_rest(const Recipe& recipe, RuleBook& rules) {
  rules.within("checkpoint.every_steps", recipe.checkpoint.every_steps, 0, kMaxSteps);
  rules.within("checkpoint.keep", recipe.checkpoint.keep, 0, kMaxSteps);
  rules.within("eval.every_epochs", recipe.eval.every_epochs, 0, kMaxSteps);
  rules.within("eval.every_steps", recipe.eval.every_steps, 0, kMaxSteps);
  rules.within("eval.batch_size", recipe.eval.batch_size, 0, kMaxBatch);
  rules.within("logging.every_steps", recipe.logging.every_steps, 1, kMaxSteps);
}

/// What a model lacks that could be built and run, but not trained.
void check_objective(const Model& model, RuleBook& rules) {
  if (model.kind != "vit") return;
  if (model.num_classes == 0)
    rules.add({"model.num_classes"},
              "model.num_classes must be at least 1 to train a classifier but got 0",
              {"model.kind"});
  if (model.pool == "none")
    rules.add({"model.pool"},
              "model.pool must be token, avg or attention to train a classifier but got 'none'",
              {"model.kind"});
}

}  // namespace

bool RuleBook::within(const std::string& key, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return true;
  if (value < low)
    add({key}, fmt::format("{} must be at least {} but got {}", key, low, value));
  else
    add({key}, fmt::format("{} must be at most {} but got {}", key, high, value));
  return false;
}

bool RuleBook::above(const std::string& key, double value, double low) {
  if (value > low) return true;
  add({key}, fmt::format("{} must be above {} but got {}", key, low, value));
  return false;
}

bool RuleBook::at_least(const std::string& key, double value, double low) {
  if (value >= low) return true;
  add({key}, fmt::format("{} must be at least {} but got {}", key, low, value));
  return false;
}

bool RuleBook::rate(const std::string& key, double value) {
  if (value >= 0 && value < 1) return true;
  add({key}, fmt::format("{} must be at least 0 and below 1 but got {}", key, value));
  return false;
}

std::vector<Violation> violations(const Recipe& recipe) {
  RuleBook rules;
  check_run(recipe.run, rules);
  check_model(recipe.model, rules);
  check_data(recipe.data, recipe.train, rules);
  const bool mixes = recipe.data.mixing == "sample";
  check_sources(recipe.data.sources, "data", mixes, recipe.model, rules);
  check_train(recipe.train, rules);
  check_state(recipe.train.optimizer, recipe.parallel, rules);
  check_parallel(recipe, rules);
  check_decatt(recipe, rules);
  check_fp8(recipe, rules);
  check_rat_run(recipe, rules);
  check_sources(recipe.eval.sources, "eval", /*mixes=*/false, recipe.model, rules);
  check_rest(recipe, rules);
  return rules.take();
}

std::vector<Violation> training_violations(const Recipe& recipe) {
  RuleBook rules;
  if (recipe.data.sources.empty())
    rules.add({"data.sources"},
              "data.sources must hold at least one source to train from but is empty");
  if (!recipe.train.epochs && !recipe.train.steps)
    rules.add({"train.epochs", "train.steps"},
              "one of train.epochs and train.steps must be given but neither is");
  check_objective(recipe.model, rules);
  check_objective_data(recipe.data.sources, "data", recipe.model, rules);
  check_objective_data(recipe.eval.sources, "eval", recipe.model, rules);
  return rules.take();
}

std::vector<std::string> problems(const Recipe& recipe) {
  std::vector<std::string> lines;
  for (const Violation& violation : violations(recipe))
    lines.push_back(problem_line(violation.text, ""));
  return lines;
}

void require_training(const Recipe& recipe) {
  std::string lines;
  for (const Violation& violation : training_violations(recipe))
    lines += (lines.empty() ? "" : "\n") + problem_line(violation.text, "");
  if (!lines.empty()) throw core::ConfigError(lines);
}

}  // namespace vitrail::config
