#include "vitrail/models/detection_losses.h"

#include <algorithm>
#include <span>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/models/matching.h"
#include "vitrail/ops/boxes.h"

namespace vitrail::models {
namespace {

constexpr double kNoMatch = 1e6;  // instead of a cost that is not finite; the loss then says so

bool is_focal(const config::Model& options) { return options.detection.class_loss == "focal"; }

/// -log p of the true class for logits x where `is_true`, of the others where not, focal: everywhere
/// weighted by what is left to learn.
at::Tensor focal_terms(const at::Tensor& x, const at::Tensor& is_true,
                       const config::Model& options) {
  const double alpha = options.detection.focal_alpha;
  const at::Tensor p = at::sigmoid(x);
  const at::Tensor missing = at::where(is_true, 1 - p, p).pow(options.focal_gamma);
  return at::where(is_true, at::softplus(-x) * alpha, at::softplus(x) * (1 - alpha)) * missing;
}

/// Cost of giving each class to each query: [B, Q, C].
at::Tensor class_cost(const at::Tensor& logits, const config::Model& options) {
  const int64_t C = options.num_classes;
  if (!is_focal(options)) return at::softmax(logits, -1).narrow(-1, 0, C).neg();
  const at::Tensor yes = at::full({}, true, logits.options().dtype(at::kBool));
  return focal_terms(logits, yes, options) - focal_terms(logits, yes.logical_not(), options);
}

/// Classes on the host, checked.
at::Tensor host_classes(const at::Tensor& classes, int64_t num_classes) {
  const at::Tensor host = classes.to(at::kCPU, at::kLong).contiguous();
  const int64_t* label = host.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < host.numel(); ++i)
    VT_REQUIRE(DataError, label[i] < num_classes,
               "[detection] the class of a box must be below model.num_classes = {} but got {}; "
               "set model.num_classes to the number of classes of the source",
               num_classes, label[i]);
  return host;
}

/// Places of one sample's boxes among its M.
std::vector<int64_t> boxes_of(const at::Tensor& classes, int64_t sample) {
  std::vector<int64_t> boxes;
  const int64_t M = classes.size(1);
  const int64_t* label = classes.const_data_ptr<int64_t>() + sample * M;
  for (int64_t m = 0; m < M; ++m)
    if (label[m] >= 0) boxes.push_back(m);
  return boxes;
}

/// `cost` [Q, M] of one sample; several matches of a box are rows of their own.
std::vector<Match> match_sample(std::span<const double> cost, int64_t sample, int64_t Q, int64_t M,
                                const std::vector<int64_t>& boxes, int64_t matches_of_a_box) {
  const auto count = static_cast<int64_t>(boxes.size());
  if (count == 0) return {};
  const int64_t times = std::clamp<int64_t>(Q / count, 1, matches_of_a_box);
  std::vector<double> rows;
  rows.reserve(static_cast<size_t>(times * count * Q));
  for (int64_t row = 0; row < times * count; ++row)
    for (int64_t q = 0; q < Q; ++q) rows.push_back(cost[q * M + boxes[row % count]]);
  const std::vector<int64_t> query = assign(rows, times * count, Q);
  std::vector<Match> matches;
  for (int64_t row = 0; row < times * count; ++row)
    if (query[row] >= 0) matches.push_back({sample, query[row], boxes[row % count]});
  return matches;
}

/// The first prediction for the first box, as the first program did.
std::vector<Match> match_by_index(int64_t sample, int64_t Q, const std::vector<int64_t>& boxes) {
  std::vector<Match> matches;
  for (int64_t i = 0; i < std::min<int64_t>(Q, boxes.size()); ++i)
    matches.push_back({sample, i, boxes[i]});
  return matches;
}

/// A prediction and how many of its queries answer for a box.
struct Asked {
  const BoxPrediction* prediction;
  int64_t matches_of_a_box;
};

std::vector<Match> matches_of(const Asked& asked, std::span<const double> cost,
                              const at::Tensor& classes, const config::Model& options) {
  const int64_t B = classes.size(0), M = classes.size(1), Q = asked.prediction->boxes.size(1);
  std::vector<std::vector<Match>> of_sample(static_cast<size_t>(B));
  at::parallel_for(0, B, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const std::vector<int64_t> boxes = boxes_of(classes, b);
      of_sample[b] = options.detection.matching == "index"
                         ? match_by_index(b, Q, boxes)
                         : match_sample(cost.subspan(b * Q * M, Q * M), b, Q, M, boxes,
                                        asked.matches_of_a_box);
    }
  });
  std::vector<Match> matches;
  for (const std::vector<Match>& some : of_sample)
    matches.insert(matches.end(), some.begin(), some.end());
  return matches;
}

/// All costs come to the host in one copy, since each makes it wait for the device.
std::vector<std::vector<Match>> match_all(const std::vector<Asked>& asked, const TrueBoxes& truth,
                                          const at::Tensor& classes, const config::Model& options) {
  std::vector<at::Tensor> costs;
  for (const Asked& one : asked)
    costs.push_back(matching_cost(*one.prediction, truth, options).flatten());
  const at::Tensor host = at::cat(costs)
                              .nan_to_num(kNoMatch, kNoMatch, -kNoMatch)
                              .to(at::kCPU, at::kDouble)
                              .contiguous();
  const std::span<const double> all(host.const_data_ptr<double>(),
                                    static_cast<size_t>(host.numel()));
  std::vector<std::vector<Match>> matches;
  size_t first = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto count = static_cast<size_t>(costs[i].numel());
    matches.push_back(matches_of(asked[i], all.subspan(first, count), classes, options));
    first += count;
  }
  return matches;
}

/// What the matches of one prediction mean for its terms, on its device.
struct Targets {
  at::Tensor classes_BQ;          // int64, num_classes = no object
  at::Tensor query_P, box_P;      // int64, into [B * Q] and [B * M]
  at::Tensor weight_P, weight_B;  // 1 / (pairs of the sample * B)
};

Targets targets_of(const std::vector<Match>& matches, const at::Tensor& host_classes, int64_t Q,
                   const config::Model& options, const at::Tensor& like) {
  const int64_t B = host_classes.size(0), M = host_classes.size(1);
  const int64_t* label = host_classes.const_data_ptr<int64_t>();
  std::vector<int64_t> classes(static_cast<size_t>(B * Q), options.num_classes), query, box;
  std::vector<double> pairs(static_cast<size_t>(B), 0.0), weight;
  for (const Match& match : matches) {
    pairs[match.sample] += 1;
    query.push_back(match.sample * Q + match.query);
    box.push_back(match.sample * M + match.box);
    classes[query.back()] = label[box.back()];
  }
  for (double& count : pairs) count = 1.0 / (std::max(count, 1.0) * static_cast<double>(B));
  for (const Match& match : matches) weight.push_back(pairs[match.sample]);
  const auto numbers = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(like.device());
  };
  return {numbers(classes).view({B, Q}), numbers(query), numbers(box),
          at::tensor(weight, at::kDouble).to(like.options()),
          at::tensor(pairs, at::kDouble).to(like.options())};
}

at::Tensor class_term(const at::Tensor& logits, const Targets& targets,
                      const config::Model& options) {
  const at::Tensor target_BQ1 = targets.classes_BQ.unsqueeze(-1);
  if (!is_focal(options)) {
    const at::Tensor loss_BQ = at::log_softmax(logits, -1).gather(-1, target_BQ1).squeeze(-1).neg();
    const at::Tensor weight_BQ = at::full_like(loss_BQ, 1.0)
                                     .masked_fill(targets.classes_BQ.eq(options.num_classes),
                                                  options.detection.no_object_weight);
    return ((loss_BQ * weight_BQ).sum(1) / weight_BQ.sum(1).clamp_min(1e-12)).mean();
  }
  std::vector<int64_t> shape = logits.sizes().vec();
  ++shape.back();  // a last column takes the queries of no object
  const at::Tensor is_true = at::zeros(shape, logits.options().dtype(at::kBool))
                                 .scatter(-1, target_BQ1, true)
                                 .narrow(-1, 0, logits.size(-1));
  return (focal_terms(logits, is_true, options).sum({1, 2}) * targets.weight_B).sum();
}

at::Tensor loss_of(const BoxPrediction& prediction, const TrueBoxes& truth, const Targets& targets,
                   const config::Model& options) {
  const config::Detection& detection = options.detection;
  const at::Tensor found = prediction.boxes.flatten(0, 1).index_select(0, targets.query_P);
  const at::Tensor wanted = truth.boxes.flatten(0, 1).index_select(0, targets.box_P);
  const at::Tensor distance_P = (found - wanted).abs().sum(-1);
  const at::Tensor overlap_P =
      ops::generalised_iou(ops::centres_to_corners(found), ops::centres_to_corners(wanted));
  const at::Tensor box_terms_P =
      distance_P * detection.l1_weight + (1 - overlap_P) * detection.giou_weight;
  return class_term(prediction.logits, targets, options) * detection.class_weight +
         (box_terms_P * targets.weight_P).sum();
}

}  // namespace

TrueBoxes true_boxes(const data::Batch& batch, at::IntArrayRef image_size) {
  const auto height = static_cast<double>(image_size[0]),
             width = static_cast<double>(image_size[1]);
  const at::Tensor pixels =
      at::tensor({width, height, width, height}, at::kDouble).to(batch.boxes.options());
  return {ops::corners_to_centres(batch.boxes / pixels), batch.box_classes};
}

at::Tensor matching_cost(const BoxPrediction& prediction, const TrueBoxes& truth,
                         const config::Model& options) {
  const at::NoGradGuard no_grad;
  const config::Detection& detection = options.detection;
  const int64_t Q = prediction.boxes.size(1);
  const at::Tensor found_BQ14 = prediction.boxes.unsqueeze(2);
  const at::Tensor wanted_B1M4 = truth.boxes.to(prediction.boxes.scalar_type()).unsqueeze(1);
  const at::Tensor label_BQM = truth.classes.clamp_min(0).unsqueeze(1).expand({-1, Q, -1});
  const at::Tensor of_class = class_cost(prediction.logits, options).gather(-1, label_BQM);
  const at::Tensor distance = (found_BQ14 - wanted_B1M4).abs().sum(-1);
  const at::Tensor overlap = ops::generalised_iou(ops::centres_to_corners(found_BQ14),
                                                  ops::centres_to_corners(wanted_B1M4));
  return of_class * detection.class_weight + distance * detection.l1_weight -
         overlap * detection.giou_weight;
}

std::vector<Match> match(const BoxPrediction& prediction, const TrueBoxes& truth,
                         const config::Model& options, int64_t matches_of_a_box) {
  return match_all({{&prediction, matches_of_a_box}}, truth,
                   host_classes(truth.classes, options.num_classes), options)[0];
}

at::Tensor detection_loss(const DetectionPredictions& predictions, const TrueBoxes& given,
                          const config::Model& options) {
  std::vector<Asked> asked;
  if (options.detection.auxiliary_losses)
    for (const BoxPrediction& earlier : predictions.earlier)
      asked.push_back({&earlier, options.detection.auxiliary_matches});
  asked.push_back({&predictions.final, 1});
  const at::Tensor& like = predictions.final.boxes;
  const TrueBoxes truth{given.boxes.to(like.scalar_type()), given.classes};
  const at::Tensor classes = host_classes(truth.classes, options.num_classes);
  const std::vector<std::vector<Match>> matches = match_all(asked, truth, classes, options);
  at::Tensor sum;
  for (size_t i = 0; i < asked.size(); ++i) {
    const BoxPrediction& prediction = *asked[i].prediction;
    const Targets targets =
        targets_of(matches[i], classes, prediction.boxes.size(1), options, like);
    const at::Tensor loss = loss_of(prediction, truth, targets, options);
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum;
}

void finish_detection(Output& out, const DetectionPredictions& predictions,
                      const data::Batch& batch, const config::Model& options) {
  out.output = predictions.final.logits;
  out.boxes = predictions.final.boxes;
  if (batch.boxes.defined() && batch.box_classes.defined())
    out.loss = detection_loss(predictions, true_boxes(batch, options.image_size), options);
}

}  // namespace vitrail::models
