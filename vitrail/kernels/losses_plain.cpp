#include <algorithm>
#include <cmath>
#include <vector>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/losses.h"

namespace vitrail::kernels {
namespace {

/// What a row is of each class: q of loss = -sum over c of q[c] log p[c], and the row's part of the mean's divisor.
struct Target {
  std::vector<double> q;
  double weight = 0;
};

Target target_of(const CrossEntropy& task, int64_t row) {
  Target target{std::vector<double>(static_cast<size_t>(task.classes))};
  const auto weight_of = [&](int64_t c) {
    return task.class_weights ? task.class_weights[c] : 1.0;
  };
  const auto add = [&](int64_t label, double share) {
    if (label < 0 || label >= task.classes) return;
    target.weight += share * weight_of(label);
    target.q[label] += share * (1.0 - task.smoothing) * weight_of(label);
    for (int64_t c = 0; c < task.classes; ++c)
      target.q[c] += share * task.smoothing / static_cast<double>(task.classes) * weight_of(c);
  };
  const double share = task.other ? task.share[row] : 1.0;
  add(task.label[row], share);
  if (task.other) add(task.other[row], 1.0 - share);
  return target;
}

}  // namespace

void cross_entropy_plain(const CrossEntropy& task) {
  double loss = 0, total = 0;
  for (int64_t row = 0; row < task.rows; ++row) total += target_of(task, row).weight;
  if (!(total > 0)) total = 1;
  std::vector<double> x(static_cast<size_t>(task.classes));
  for (int64_t row = 0; row < task.rows; ++row) {
    const Target target = target_of(task, row);
    for (int64_t c = 0; c < task.classes; ++c) x[c] = from_bf16(task.logits[row * task.stride + c]);
    const double largest = *std::max_element(x.begin(), x.end());
    double sum = 0, all_q = 0;
    for (const double value : x) sum += std::exp(value - largest);
    const double log_sum = largest + std::log(sum);
    for (int64_t c = 0; c < task.classes; ++c) {
      loss -= target.q[c] * (x[c] - log_sum);
      all_q += target.q[c];
    }
    for (int64_t c = 0; c < task.classes && task.dlogits; ++c)
      task.dlogits[row * task.stride + c] = to_bf16(static_cast<float>(
          (std::exp(x[c] - log_sum) * all_q - target.q[c]) * task.scale / total));
  }
  *task.loss = static_cast<float>(loss / total);
}

namespace {

/// A token's target as the model is to predict it.
std::vector<double> scored_target(const TokenError& task, int64_t token) {
  const float* from = task.target + token * task.width;
  std::vector<double> target(from, from + task.width);
  if (!task.normalises) return target;
  const auto width = static_cast<double>(task.width);
  double mean = 0, squares = 0;
  for (const double value : target) mean += value / width;
  for (const double value : target) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / (width - 1.0) + 1e-6);
  for (double& value : target) value = (value - mean) / deviation;
  return target;
}

}  // namespace

void token_error_plain(const TokenError& task) {
  const int64_t all = task.prefix + task.tokens;
  const auto weight_of = [&](int64_t token) { return task.weights ? task.weights[token] : 1.0; };
  double loss = 0, total = 0;
  for (int64_t token = 0; token < task.samples * task.tokens; ++token) total += weight_of(token);
  if (!(total > 0)) total = 1;
  for (int64_t row = 0; row < task.samples * all; ++row) {
    const int64_t token = row / all * task.tokens + row % all - task.prefix;
    const double weight = row % all < task.prefix ? 0.0 : weight_of(token);
    const std::vector<double> target = weight == 0
                                           ? std::vector<double>(static_cast<size_t>(task.width))
                                           : scored_target(task, token);
    for (int64_t c = 0; c < task.width; ++c) {
      const int64_t i = row * task.width + c;
      const double miss = weight == 0 ? 0 : from_bf16(task.prediction[i]) - target[c];
      loss += weight * miss * miss;
      if (task.dprediction)
        task.dprediction[i] = to_bf16(static_cast<float>(
            2.0 * weight * miss * task.scale / (static_cast<double>(task.width) * total)));
    }
  }
  *task.loss = static_cast<float>(loss / (static_cast<double>(task.width) * total));
}

}  // namespace vitrail::kernels
