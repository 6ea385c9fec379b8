#include "vitrail/models/probe.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

constexpr int64_t kQueries = 256;
constexpr size_t kHistory = 10;
/// Armijo's share of the expected decrease.
constexpr double kDecrease = 1e-4;
constexpr int kHalvings = 40;
/// Beside its mean, the deviation that rounding leaves to a constant feature is smaller.
constexpr double kConstant = 1e-12;

/// Rows that have a label; x stays as it is.
Features labelled(const Features& features, int64_t num_classes, const char* name) {
  const auto& [x, label] = features;
  VT_CHECK(x.defined() && label.defined() && x.dim() == 2 && label.dim() == 1 &&
               x.size(0) == label.size(0),
           "[probe] {} features must be [N, D] with N labels but got {} values and {} labels", name,
           x.defined() ? x.numel() : 0, label.defined() ? label.numel() : 0);
  VT_REQUIRE(DataError, x.isfinite().all().item<bool>(),
             "[probe] {} features must be finite but some are not", name);
  const at::Tensor labels = label.to(x.device(), at::kLong);
  const at::Tensor rows = at::nonzero(labels >= 0).flatten();
  if (rows.numel() == 0) return {x.narrow(0, 0, 0), labels.narrow(0, 0, 0)};
  const int64_t largest = labels.max().item<int64_t>();
  VT_REQUIRE(DataError, largest < num_classes,
             "[probe] a label must be below the {} classes but got {}", num_classes, largest);
  if (rows.numel() == x.size(0)) return {x, labels};
  return {x.index_select(0, rows), labels.index_select(0, rows)};
}

std::pair<Features, Features> checked(const Features& train, const Features& test,
                                      int64_t num_classes) {
  std::pair<Features, Features> both{labelled(train, num_classes, "training"),
                                     labelled(test, num_classes, "test")};
  VT_REQUIRE(DataError, both.first.x_ND.size(0) > 0,
             "[probe] at least one training row must have a label but none of {} has",
             train.x_ND.size(0));
  VT_CHECK(both.first.x_ND.size(1) == both.second.x_ND.size(1),
           "[probe] training and test rows must be equally long but got {} and {}",
           both.first.x_ND.size(1), both.second.x_ND.size(1));
  return both;
}

MetricList without_loss(MetricList list) {
  std::erase_if(list, [](const auto& entry) { return entry.first == "loss"; });
  return list;
}

at::Tensor unit_rows(const at::Tensor& x_ND) {
  const at::Tensor x = x_ND.to(at::kFloat);
  return x / x.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12);
}

/// The columns of the k largest values of each row, [Q, k] in ascending order; of equal values at the
/// edge the lower columns. topk alone leaves open which of them it takes.
at::Tensor nearest(const at::Tensor& close_QN, int64_t k) {
  const at::Tensor edge_Q1 = std::get<0>(at::topk(close_QN, k, 1)).narrow(1, k - 1, 1);
  const at::Tensor above_QN = close_QN > edge_Q1, at_edge_QN = close_QN.eq(edge_Q1);
  const at::Tensor room_Q1 = k - above_QN.sum(1, /*keepdim=*/true);
  const at::Tensor taken_QN =
      above_QN.logical_or(at_edge_QN.logical_and(at_edge_QN.cumsum(1) <= room_Q1));
  return at::nonzero(taken_QN).select(1, 1).view({close_QN.size(0), k});
}

/// Relative to the nearest row, so that no temperature overflows.
at::Tensor votes_of(const at::Tensor& close_Qk, const at::Tensor& label_Qk, int64_t num_classes,
                    double temperature) {
  const at::Tensor weight_Qk =
      ((close_Qk - close_Qk.amax(1, /*keepdim=*/true)) / temperature).exp();
  at::Tensor votes_QC = at::zeros({close_Qk.size(0), num_classes}, close_Qk.options());
  // One neighbour of every row at a time: no two of them meet in a cell, so the order of additions
  // is fixed on GPUs too.
  for (int64_t i = 0; i < close_Qk.size(1); ++i)
    votes_QC.scatter_add_(1, label_Qk.narrow(1, i, 1), weight_Qk.narrow(1, i, 1));
  return votes_QC;
}

/// Mean cross-entropy + l2 / 2 |W|^2 of all rows and its gradient. Parameters [D + 1, C], the last row
/// the bias; x has a last column of ones.
class Objective {
 public:
  Objective(const Features& rows, int64_t num_classes, double l2)
      : x_NE_(at::cat({rows.x_ND, at::ones({rows.x_ND.size(0), 1}, rows.x_ND.options())}, 1)),
        label_N1_(rows.label_N.unsqueeze(1)),
        num_classes_(num_classes),
        l2_(l2) {}

  at::Tensor start() const { return at::zeros({x_NE_.size(1), num_classes_}, x_NE_.options()); }

  double operator()(const at::Tensor& parameters, at::Tensor& gradient) const {
    const at::Tensor log_p_NC = at::log_softmax(at::matmul(x_NE_, parameters), 1);
    const auto rows = static_cast<double>(x_NE_.size(0));
    const at::Tensor loss = -log_p_NC.gather(1, label_N1_).sum() / rows;
    at::Tensor error_NC = log_p_NC.exp();
    error_NC.scatter_(1, label_N1_, error_NC.gather(1, label_N1_) - 1.0);
    gradient = at::matmul(x_NE_.t(), error_NC) / rows;
    const at::Tensor weight = parameters.narrow(0, 0, parameters.size(0) - 1);
    gradient.narrow(0, 0, weight.size(0)).add_(weight, l2_);
    return (loss + 0.5 * l2_ * weight.square().sum()).item<double>();
  }

 private:
  at::Tensor x_NE_, label_N1_;
  int64_t num_classes_;
  double l2_;
};

double scalar_product(const at::Tensor& a, const at::Tensor& b) {
  return (a * b).sum().item<double>();
}
double largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

/// L-BFGS's memory: the last steps and the changes of the gradient along them.
class Curvature {
 public:
  void add(const at::Tensor& step, const at::Tensor& change) {
    const double product = scalar_product(step, change);
    if (product <= 0) return;  // only where rounding hides the curvature of a convex function
    pairs_.push_back({step, change, product});
    if (pairs_.size() > kHistory) pairs_.pop_front();
  }

  /// The two-loop recursion: an inverse Hessian times the gradient.
  at::Tensor solve(const at::Tensor& gradient) const {
    at::Tensor q = gradient.clone();
    std::vector<double> shares(pairs_.size());
    for (size_t i = pairs_.size(); i-- > 0;) {
      shares[i] = scalar_product(pairs_[i].step, q) / pairs_[i].product;
      q.sub_(pairs_[i].change, shares[i]);
    }
    // Before any curvature is known a step of at most one.
    q.mul_(pairs_.empty() ? 1 / std::max(1.0, gradient.norm().item<double>())
                          : pairs_.back().product /
                                scalar_product(pairs_.back().change, pairs_.back().change));
    for (size_t i = 0; i < pairs_.size(); ++i)
      q.add_(pairs_[i].step, shares[i] - scalar_product(pairs_[i].change, q) / pairs_[i].product);
    return q;
  }
  void forget() { pairs_.clear(); }
  bool empty() const { return pairs_.empty(); }

 private:
  struct Pair {
    at::Tensor step, change;
    double product;
  };
  std::deque<Pair> pairs_;
};

/// Halves the step until the objective falls enough; false when no step does.
bool descend(const Objective& objective, const at::Tensor& direction, at::Tensor& parameters,
             at::Tensor& gradient, double& value) {
  const double slope = scalar_product(direction, gradient);
  double length = 1;
  for (int i = 0; i < kHalvings; ++i, length *= 0.5) {
    const at::Tensor there = parameters + length * direction;
    at::Tensor gradient_there;
    const double value_there = objective(there, gradient_there);
    if (!(value_there <= value + kDecrease * length * slope)) continue;
    parameters = there;
    gradient = gradient_there;
    value = value_there;
    return true;
  }
  return false;
}

void minimise(const Objective& objective, const LinearProbeOptions& options, at::Tensor& parameters,
              LinearProbe& probe) {
  at::Tensor gradient;
  probe.objective = objective(parameters, gradient);
  Curvature curvature;
  while ((probe.gradient = largest(gradient)) > options.tolerance &&
         probe.iterations < options.max_iterations) {
    const at::Tensor before = parameters, gradient_before = gradient;
    if (descend(objective, -curvature.solve(gradient), parameters, gradient, probe.objective)) {
      curvature.add(parameters - before, gradient - gradient_before);
      ++probe.iterations;
    } else if (curvature.empty()) {
      break;  // rounding hides every further decrease
    } else {
      curvature.forget();
    }
  }
  probe.converged = probe.gradient <= options.tolerance;
}

}  // namespace

MetricList nearest_neighbor_probe(const Features& train, const Features& test, int64_t num_classes,
                                  const NeighborOptions& options) {
  const at::NoGradGuard no_grad;
  VT_REQUIRE(ConfigError, options.k >= 1 && options.temperature > 0,
             "[probe] k must be at least 1 and temperature above 0 but got {} and {}", options.k,
             options.temperature);
  const auto [known, asked] = checked(train, test, num_classes);
  const at::Tensor known_DN = unit_rows(known.x_ND).t(), asked_ND = unit_rows(asked.x_ND);
  const int64_t k = std::min(options.k, known_DN.size(1));
  ClassificationTally tally(num_classes);
  for (int64_t first = 0; first < asked_ND.size(0); first += kQueries) {
    const int64_t count = std::min(kQueries, asked_ND.size(0) - first);
    const at::Tensor close_QN = at::matmul(asked_ND.narrow(0, first, count), known_DN);
    const at::Tensor rows_Qk = nearest(close_QN, k);
    const at::Tensor label_Qk = known.label_N.index_select(0, rows_Qk.flatten()).view_as(rows_Qk);
    tally.add(votes_of(close_QN.gather(1, rows_Qk), label_Qk, num_classes, options.temperature),
              asked.label_N.narrow(0, first, count));
  }
  return without_loss(tally.metrics());
}

LinearProbe linear_probe(const Features& train, const Features& test, int64_t num_classes,
                         const LinearProbeOptions& options) {
  const at::NoGradGuard no_grad;
  VT_REQUIRE(ConfigError, options.l2 >= 0 && options.max_iterations >= 1,
             "[probe] l2 must be at least 0 and max_iterations at least 1 but got {} and {}",
             options.l2, options.max_iterations);
  auto [known, asked] = checked(train, test, num_classes);
  known.x_ND = known.x_ND.to(at::kDouble);
  LinearProbe probe;
  probe.mean_D = known.x_ND.mean(0);
  const at::Tensor deviation_D = known.x_ND.std(at::OptionalIntArrayRef(0), /*correction=*/0);
  probe.deviation_D = at::where(deviation_D > kConstant * probe.mean_D.abs(), deviation_D, 1.0);
  known.x_ND = (known.x_ND - probe.mean_D) / probe.deviation_D;

  const Objective objective(known, num_classes, options.l2);
  at::Tensor parameters = objective.start();
  minimise(objective, options, parameters, probe);
  probe.weight_CD = parameters.narrow(0, 0, known.x_ND.size(1)).t().contiguous();
  probe.bias_C = parameters.select(0, known.x_ND.size(1)).contiguous();

  ClassificationTally tally(num_classes);
  const at::Tensor x_ND = (asked.x_ND.to(at::kDouble) - probe.mean_D) / probe.deviation_D;
  tally.add(at::matmul(x_ND, probe.weight_CD.t()) + probe.bias_C, asked.label_N);
  probe.metrics = tally.metrics();
  return probe;
}

}  // namespace vitrail::models
