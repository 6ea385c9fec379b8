#include "vitrail/models/metrics_detection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kAreas[kAreaRanges][2] = {
    {0, 1e10}, {0, 32.0 * 32}, {32.0 * 32, 96.0 * 96}, {96.0 * 96, 1e10}};
constexpr int64_t kRecalls = 101;
constexpr int64_t kNobody = -1;

/// numpy's linspace(.5, .95, 10), to the last bit: what is at a threshold must be so there too.
double threshold_at(int64_t t) {
  constexpr double kLast = 0.95;
  return t == kThresholds - 1 ? kLast : 0.5 + static_cast<double>(t) * ((kLast - 0.5) / 9);
}
double recall_at(int64_t r) {
  return r == kRecalls - 1 ? 1.0 : static_cast<double>(r) * (1.0 / 100);
}

uint64_t bit(int64_t threshold, int64_t range) {
  return uint64_t{1} << (threshold * kAreaRanges + range);
}

double area_of(const std::array<double, 4>& box) { return (box[2] - box[0]) * (box[3] - box[1]); }

bool is_outside(double area, int64_t range) {
  return area < kAreas[range][0] || area > kAreas[range][1];
}

/// Of a crowd: the share of the found box that lies in it.
double overlap(const FoundBox& found, const TrueBox& truth) {
  const auto& a = found.corners;
  const auto& b = truth.corners;
  const double width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
  const double height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const double common = width * height;
  return common / (truth.is_crowd ? area_of(a) : area_of(a) + area_of(b) - common);
}

/// The boxes of one image and class, found ones by falling score.
class ClassMatcher {
 public:
  ClassMatcher(std::vector<const FoundBox*> found, std::vector<const TrueBox*> truth)
      : found_(std::move(found)), truth_(std::move(truth)) {
    for (const FoundBox* one : found_)
      for (const TrueBox* other : truth_) iou_.push_back(overlap(*one, *other));
  }

  /// Sets the bits of one threshold and range in `scored`, which has an entry for each found box.
  void match(int64_t threshold, int64_t range, std::span<ScoredBox> scored) const {
    std::vector<int64_t> order;  // true boxes that count first
    for (const bool wants_ignored : {false, true})
      for (size_t g = 0; g < truth_.size(); ++g)
        if (is_ignored(g, range) == wants_ignored) order.push_back(static_cast<int64_t>(g));
    std::vector<char> is_taken(truth_.size(), false);
    for (size_t d = 0; d < found_.size(); ++d) {
      const int64_t g = best(d, threshold, range, order, is_taken);
      if (g != kNobody) is_taken[g] = true;
      const bool is_hidden = g == kNobody ? is_outside(area_of(found_[d]->corners), range)
                                          : is_ignored(static_cast<size_t>(g), range);
      if (g != kNobody) scored[d].is_matched |= bit(threshold, range);
      if (is_hidden) scored[d].is_ignored |= bit(threshold, range);
    }
  }

  int64_t counted(int64_t range) const {
    int64_t count = 0;
    for (size_t g = 0; g < truth_.size(); ++g) count += !is_ignored(g, range);
    return count;
  }

 private:
  bool is_ignored(size_t g, int64_t range) const {
    return truth_[g]->is_crowd || is_outside(truth_[g]->area, range);
  }

  int64_t best(size_t d, int64_t threshold, int64_t range, const std::vector<int64_t>& order,
               const std::vector<char>& is_taken) const {
    double least = std::min(threshold_at(threshold), 1 - 1e-10);
    int64_t found = kNobody;
    for (const int64_t g : order) {
      if (is_taken[g] && !truth_[g]->is_crowd) continue;
      // A box that counts is not given up for one that does not.
      if (found != kNobody && !is_ignored(static_cast<size_t>(found), range) &&
          is_ignored(static_cast<size_t>(g), range))
        break;
      const double iou = iou_[d * truth_.size() + g];
      if (iou < least) continue;
      least = iou;
      found = g;
    }
    return found;
  }

  std::vector<const FoundBox*> found_;
  std::vector<const TrueBox*> truth_;
  std::vector<double> iou_;  // [found][truth]
};

/// Precision at kRecalls recalls and the greatest recall, of boxes by falling score.
struct Curve {
  double average_precision = kNone, recall = kNone;
};

Curve curve(const std::vector<ScoredBox>& boxes, int64_t truths, int64_t threshold, int64_t range,
            int64_t max_rank) {
  if (truths == 0) return {};
  std::vector<double> recalls, precisions;
  double right = 0, wrong = 0;
  for (const ScoredBox& box : boxes) {
    if (box.rank >= max_rank) continue;
    const uint64_t mask = bit(threshold, range);
    if (!(box.is_ignored & mask)) (box.is_matched & mask ? right : wrong) += 1;
    recalls.push_back(right / static_cast<double>(truths));
    precisions.push_back(right / (right + wrong + std::numeric_limits<double>::epsilon()));
  }
  for (size_t i = precisions.size(); i-- > 1;)
    precisions[i - 1] = std::max(precisions[i - 1], precisions[i]);
  double sum = 0;
  for (int64_t r = 0; r < kRecalls; ++r) {
    const auto at = std::lower_bound(recalls.begin(), recalls.end(), recall_at(r));
    if (at != recalls.end()) sum += precisions[at - recalls.begin()];
  }
  return {sum / kRecalls, recalls.empty() ? 0.0 : recalls.back()};
}

class Mean {
 public:
  void add(double value) {
    if (std::isnan(value)) return;
    sum_ += value;
    ++count_;
  }
  double value() const { return count_ > 0 ? sum_ / static_cast<double>(count_) : kNone; }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

/// Means over classes, and over thresholds or of one of them.
class Summary {
 public:
  Summary(const std::vector<std::vector<ScoredBox>>& of_class, const std::vector<int64_t>& truths)
      : of_class_(of_class), truths_(truths) {}

  double precision(int64_t range, int64_t first = 0, int64_t last = kThresholds) const {
    return mean(range, first, last, kMaxFound, &Curve::average_precision);
  }
  double recall(int64_t range, int64_t max_rank) const {
    return mean(range, 0, kThresholds, max_rank, &Curve::recall);
  }
  double of_class(size_t label, int64_t first, int64_t last) const {
    Mean mean;
    for (int64_t t = first; t < last; ++t)
      mean.add(
          curve(of_class_[label], truths_[label * kAreaRanges], t, 0, kMaxFound).average_precision);
    return mean.value();
  }

 private:
  double mean(int64_t range, int64_t first, int64_t last, int64_t max_rank,
              double Curve::*what) const {
    Mean mean;
    for (int64_t t = first; t < last; ++t)
      for (size_t label = 0; label < of_class_.size(); ++label)
        mean.add(curve(of_class_[label], truths_[label * kAreaRanges + range], t, range, max_rank).*
                 what);
    return mean.value();
  }

  const std::vector<std::vector<ScoredBox>>& of_class_;
  const std::vector<int64_t>& truths_;
};

/// Classes found and true, [label] -> boxes.
template <class Box>
std::vector<std::vector<const Box*>> by_class(const std::vector<Box>& boxes, int64_t num_classes) {
  std::vector<std::vector<const Box*>> lists(static_cast<size_t>(num_classes));
  for (const Box& box : boxes) {
    VT_REQUIRE(DataError, box.label >= 0 && box.label < num_classes,
               "[metrics] the class of a box must be below model.num_classes = {} but got {}",
               num_classes, box.label);
    lists[static_cast<size_t>(box.label)].push_back(&box);
  }
  return lists;
}

}  // namespace

ImageScores score_image(int64_t image, const std::vector<FoundBox>& found,
                        const std::vector<TrueBox>& truth, int64_t num_classes) {
  ImageScores scores;
  scores.truths.assign(static_cast<size_t>(num_classes * kAreaRanges), 0);
  auto found_lists = by_class(found, num_classes);
  const auto truth_lists = by_class(truth, num_classes);
  for (size_t label = 0; label < found_lists.size(); ++label) {
    auto& list = found_lists[label];
    std::stable_sort(list.begin(), list.end(),
                     [](const FoundBox* a, const FoundBox* b) { return a->score > b->score; });
    if (list.size() > kMaxFound) list.resize(kMaxFound);
    std::vector<ScoredBox> scored;
    for (const FoundBox* box : list)
      scored.push_back({image, box->label, static_cast<int64_t>(scored.size()), box->score});
    const ClassMatcher matcher(list, truth_lists[label]);
    for (int64_t range = 0; range < kAreaRanges; ++range) {
      scores.truths[label * kAreaRanges + range] = matcher.counted(range);
      for (int64_t t = 0; t < kThresholds; ++t) matcher.match(t, range, scored);
    }
    scores.boxes.insert(scores.boxes.end(), scored.begin(), scored.end());
  }
  return scores;
}

CocoMetrics coco_metrics(std::vector<ScoredBox> boxes, const std::vector<int64_t>& truths,
                         int64_t num_classes) {
  VT_CHECK(static_cast<int64_t>(truths.size()) == num_classes * kAreaRanges,
           "[metrics] counts of true boxes must be {} but are {}", num_classes * kAreaRanges,
           truths.size());
  // Equal scores: images in order, then as each image had them; so that ranks and batches play no part.
  std::sort(boxes.begin(), boxes.end(), [](const ScoredBox& a, const ScoredBox& b) {
    if (a.score != b.score) return a.score > b.score;
    return std::pair(a.image, a.rank) < std::pair(b.image, b.rank);
  });
  std::vector<std::vector<ScoredBox>> of_class(static_cast<size_t>(num_classes));
  for (const ScoredBox& box : boxes) of_class[static_cast<size_t>(box.label)].push_back(box);
  const Summary summary(of_class, truths);
  CocoMetrics metrics{
      summary.precision(0),   summary.precision(0, 0, 1), summary.precision(0, 5, 6),
      summary.precision(1),   summary.precision(2),       summary.precision(3),
      summary.recall(0, 1),   summary.recall(0, 10),      summary.recall(0, 100),
      summary.recall(1, 100), summary.recall(2, 100),     summary.recall(3, 100)};
  for (size_t label = 0; label < of_class.size(); ++label) {
    metrics.class_ap.push_back(summary.of_class(label, 0, kThresholds));
    metrics.class_ap50.push_back(summary.of_class(label, 0, 1));
  }
  return metrics;
}

}  // namespace vitrail::models
