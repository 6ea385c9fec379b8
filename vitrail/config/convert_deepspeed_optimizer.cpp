// DeepSpeed's sections optimizer and scheduler.

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/config/convert_deepspeed.h"

namespace vitrail::config {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// What DeepSpeed takes where the file is silent; "auto" leaves it to the recipe.
void set_or_default(Converter& converter, const std::string& path, const std::string& key,
                    double otherwise) {
  const bool given = converter.has(path);
  const std::optional<double> value = converter.number(path);
  if (value)
    converter.set(path, key, recipe_number(*value));
  else if (!given)
    converter.derive(key, recipe_number(otherwise),
                     path.substr(path.rfind('.') + 1) + " is not given: DeepSpeed's default");
}

void convert_adam(Converter& converter, const std::string& params, bool decouples) {
  converter.set("optimizer.type", "train.optimizer.kind", "adamw");
  set_or_default(converter, params + ".eps", "train.optimizer.eps", 1e-8);
  set_or_default(converter, params + ".weight_decay", "train.optimizer.weight_decay", 0.0);
  const Node* decay = converter.take(params + ".weight_decay");
  if (!decouples && decay && as_number(*decay).value_or(1) != 0)
    converter.refuse(params + ".adam_w_mode",
                     "false adds the decay to the gradient, which vitrail's adamw does not; set "
                     "weight_decay 0 or adam_w_mode true");
  else if (decay && as_number(*decay).value_or(0) != 0)
    converter.note(params + ".weight_decay",
                   "not on biases, norms, tokens and position tables, which DeepSpeed decays too");
  const Node* betas = converter.take(params + ".betas");
  if (!betas || is_auto(*betas)) {
    if (betas) converter.note(params + ".betas", "auto: the recipe's value stays");
    return;
  }
  const bool fits = betas->is_list() && betas->items.size() == 2 && as_number(betas->items[0]) &&
                    as_number(betas->items[1]);
  if (!fits)
    return converter.refuse(params + ".betas",
                            "must be a list of two numbers but got " + value_text(*betas));
  converter.set(params + ".betas", "train.optimizer.betas",
                fmt::format("[{}, {}]", recipe_number(*as_number(betas->items[0])),
                            recipe_number(*as_number(betas->items[1]))));
}

/// Switches that change the rule when they do not have their usual value.
void expect(Converter& converter, const std::string& path, bool usual) {
  const std::optional<bool> value = converter.boolean(path);
  if (!value) return;
  if (*value == usual)
    converter.note(path, "always so");
  else
    converter.refuse(path, fmt::format("{} is not in vitrail", *value));
}

void convert_rule(Converter& converter) {
  if (!converter.enter("optimizer")) return;
  converter.auto_means("auto: the recipe's value stays");
  const std::string params = "optimizer.params";
  converter.enter(params);
  const std::string type = lower(converter.text("optimizer.type").value_or(""));
  const bool decouples = converter.boolean(params + ".adam_w_mode").value_or(true);
  if (converter.has(params + ".adam_w_mode"))
    converter.note(params + ".adam_w_mode", decouples ? "always so" : "");
  set_or_default(converter, params + ".lr", "train.optimizer.lr", 1e-3);
  if (type == "adamw" || type == "adam") {
    convert_adam(converter, params, decouples);
  } else if (type == "sgd") {
    converter.set("optimizer.type", "train.optimizer.kind", "sgd");
    set_or_default(converter, params + ".momentum", "train.optimizer.momentum", 0.0);
    set_or_default(converter, params + ".weight_decay", "train.optimizer.weight_decay", 0.0);
    expect(converter, params + ".nesterov", false);
  } else if (converter.has("optimizer.type")) {
    converter.refuse("optimizer.type",
                     "must be Adam, AdamW or SGD for vitrail but got '" + type + "'");
  }
  expect(converter, params + ".bias_correction", true);
  expect(converter, params + ".amsgrad", false);
  answer(converter, params,
         {{"torch_adam", "no counterpart: one AdamW, equal to torch's"},
          {"fused", "always so"},
          {"foreach", "no counterpart"},
          {"set_grad_none", "no counterpart"},
          {"adamw_mode", "always so"},
          {"max_grad_norm", "deprecated: became gradient_clipping, which says what is done"}});
  answer(converter, "optimizer", {{"legacy_fusion", "no counterpart"}});
}

/// The one value of a number or of a list of equal ones.
std::optional<double> rate_at(Converter& converter, const std::string& path) {
  const Node* node = converter.take(path);
  if (!node || !node->is_list()) return converter.number(path);
  std::optional<double> value;
  for (const Node& item : node->items) {
    const std::optional<double> one = as_number(item);
    if (!one || (value && *one != *value)) {
      converter.refuse(path, "must be one rate for all parameters but got " + value_text(*node));
      return {};
    }
    value = one;
  }
  return value;
}

/// The rate that the schedule rises to when the file does not say otherwise.
double base_rate(Converter& converter, const ConvertOptions& options) {
  const Node* node = converter.take("optimizer.params.lr");
  const std::optional<double> rate = node ? as_number(*node) : std::nullopt;
  return rate.value_or(node || !converter.has("optimizer") ? options.base.train.optimizer.lr
                                                           : 1e-3);
}

constexpr const char* kSchedule = "train.schedule.";

/// WarmupLR and WarmupDecayLR name rates, WarmupCosineLR ratios of the optimizer's.
void convert_rates(Converter& converter, const std::string& params, const std::string& kind,
                   double base) {
  const auto set = [&](const std::string& name, const std::string& key, double otherwise,
                       double factor) {
    const std::string path = params + "." + name;
    const std::optional<double> value = rate_at(converter, path);
    const std::string rate = recipe_number(value.value_or(otherwise) * factor);
    const std::string note =
        factor == 1.0 ? "" : fmt::format("{} x {}", value.value_or(otherwise), base);
    if (converter.has(path) && value)
      converter.set(path, kSchedule + key, rate, note);
    else if (!converter.has(path))
      converter.derive(kSchedule + key, rate, name + " is not given: DeepSpeed's default");
  };
  if (kind == "cosine") {
    set("warmup_min_ratio", "warmup_start_lr", 0.0, base);
    set("cos_min_ratio", "min_lr", 1e-4, base);
    return;
  }
  const std::optional<double> start = rate_at(converter, params + ".warmup_min_lr");
  set("warmup_min_lr", "warmup_start_lr", 0.0, 1.0);
  if (kind == "linear")
    converter.derive(std::string(kSchedule) + "min_lr", recipe_number(start.value_or(0.0)),
                     "WarmupDecayLR falls back to warmup_min_lr");
  const std::string most = params + ".warmup_max_lr";
  const std::optional<double> top = rate_at(converter, most);
  if (top)
    converter.set(most, "train.optimizer.lr", recipe_number(*top),
                  *top == base ? "" : fmt::format("the scheduler's wins over lr {}", base));
}

void convert_lengths(Converter& converter, const std::string& params, bool ends) {
  const std::string warmup = params + ".warmup_num_steps", total = params + ".total_num_steps";
  converter.auto_means("auto: the recipe's value stays");
  const std::optional<int64_t> rise = converter.integer(warmup);
  if (rise)
    converter.set(warmup, std::string(kSchedule) + "warmup_steps", std::to_string(*rise));
  else if (!converter.has(warmup))
    converter.derive(std::string(kSchedule) + "warmup_steps", "1000",
                     "warmup_num_steps is not given: DeepSpeed's default");
  converter.auto_means("auto: the run's length");
  const std::optional<int64_t> all = converter.integer(total);
  if (all && ends)
    converter.set(total, std::string(kSchedule) + "total_steps", std::to_string(*all),
                  "of the schedule; train.steps or epochs says how long the run is");
  else if (all)
    converter.note(total, "WarmupLR has no end");
  else if (ends && !converter.has(total))
    converter.derive(std::string(kSchedule) + "total_steps", "null",
                     "total_num_steps is not given: the run's length");
}

void convert_scheduler(Converter& converter, const ConvertOptions& options) {
  if (!converter.enter("scheduler")) return;
  const std::string params = "scheduler.params";
  converter.enter(params);
  const std::string type = converter.text("scheduler.type").value_or("");
  const std::string kind = type == "WarmupLR"         ? "constant"
                           : type == "WarmupDecayLR"  ? "linear"
                           : type == "WarmupCosineLR" ? "cosine"
                                                      : "";
  if (kind.empty()) {
    const Node* node = converter.take("scheduler.type");
    if (node && !is_auto(*node))
      converter.refuse(
          "scheduler.type",
          "must be WarmupLR, WarmupDecayLR or WarmupCosineLR for vitrail but got '" + type + "'");
    return;
  }
  converter.set("scheduler.type", std::string(kSchedule) + "kind", kind);
  converter.derive(std::string(kSchedule) + "counting", "deepspeed",
                   "the scheduler's values, step by step");
  converter.auto_means("auto: log, DeepSpeed's default");
  const std::string rise = converter.text(params + ".warmup_type").value_or("log");
  if (converter.has(params + ".warmup_type"))
    converter.set(params + ".warmup_type", std::string(kSchedule) + "warmup",
                  rise == "linear" ? "linear" : "log",
                  rise == "linear" || rise == "log" ? "" : "an unknown word means log there");
  else
    converter.derive(std::string(kSchedule) + "warmup", "log",
                     "warmup_type is not given: DeepSpeed's default");
  convert_lengths(converter, params, kind != "constant");
  converter.auto_means("auto: DeepSpeed's default");
  convert_rates(converter, params, kind, base_rate(converter, options));
  answer(converter, params, {{"last_batch_iteration", "no counterpart: resuming knows the step"}});
}

void convert_clipping(Converter& converter) {
  converter.auto_means("auto: off, the default of DeepSpeed's code");
  const std::optional<double> norm = converter.number("gradient_clipping");
  if (norm)
    converter.set("gradient_clipping", "train.clip_grad_norm", recipe_number(*norm),
                  *norm == 0 ? "no clipping" : "");
  const Node* old = converter.take("optimizer.params.max_grad_norm");
  if (!norm && old && as_number(*old))
    converter.set("optimizer.params.max_grad_norm", "train.clip_grad_norm",
                  recipe_number(*as_number(*old)));
}

}  // namespace

void convert_optimizer(Converter& converter, const ConvertOptions& options) {
  convert_rule(converter);
  convert_scheduler(converter, options);
  convert_clipping(converter);
}

}  // namespace vitrail::config
