#include "vitrail/train/examples.h"

#include <algorithm>

#include <ATen/ops/softmax.h>

namespace vitrail::train {

namespace {

constexpr size_t kVerdictsOfAKind = 24;
constexpr int64_t kSpread = 8;

at::Tensor on_host(const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kFloat).clone(); }

}  // namespace

bool ExampleCollector::has_all_verdicts() const {
  return right_ >= kVerdictsOfAKind && wrong_ >= kVerdictsOfAKind;
}

void ExampleCollector::add(const data::Batch& batch, const models::Output& output) {
  if (task_ == models::Task::classification) add_verdicts(batch, output);
  if (task_ == models::Task::segmentation || task_ == models::Task::reconstruction ||
      task_ == models::Task::detection)
    add_spread(batch, output);
}

void ExampleCollector::add_verdicts(const data::Batch& batch, const models::Output& output) {
  if (has_all_verdicts()) return;
  const at::Tensor shares = at::softmax(output.output.to(at::kCPU, at::kFloat), 1);
  const at::Tensor labels = batch.label.to(at::kCPU), predicted = shares.argmax(1);
  for (int64_t i = 0; i < batch.size() && !has_all_verdicts(); ++i) {
    const int64_t truth = labels.const_data_ptr<int64_t>()[i];
    const int64_t guess = predicted.const_data_ptr<int64_t>()[i];
    if (truth < 0) continue;
    size_t& count = truth == guess ? right_ : wrong_;
    size_t& of_class = of_class_[{truth, truth == guess}];
    // Lists are sorted by class; without a share for each, all pictures would show the first.
    const size_t share = (kVerdictsOfAKind + shares.size(1) - 1) / shares.size(1);
    if (count >= kVerdictsOfAKind || of_class >= share) continue;
    ++count;
    ++of_class;
    Example example;
    example.sample = batch.sample_ids[i].item<int64_t>();
    example.image = on_host(batch.image[i]);
    example.output = shares[i].clone();
    example.label = truth;
    example.predicted = guess;
    examples_.push_back(std::move(example));
  }
}

void ExampleCollector::add_spread(const data::Batch& batch, const models::Output& output) {
  const at::Tensor ids = batch.sample_ids.to(at::kCPU);
  for (int64_t i = 0; i < batch.size(); ++i) {
    const int64_t sample = ids.const_data_ptr<int64_t>()[i];
    const int64_t stretch = sample * kSpread / std::max<int64_t>(1, samples_);
    // Of the samples of one stretch the one with most to see: tiles of a volume may hold none.
    const int64_t seen = content(batch, i);
    if (stretch == stretch_ && seen <= content_) continue;
    if (stretch == stretch_) examples_.pop_back();
    stretch_ = stretch;
    content_ = seen;
    examples_.push_back(spread_example(batch, output, i, sample));
  }
}

/// How much there is to see.
int64_t ExampleCollector::content(const data::Batch& batch, int64_t i) const {
  if (task_ == models::Task::segmentation) return batch.label[i].gt(0).sum().item<int64_t>();
  if (task_ == models::Task::detection && batch.box_classes.defined())
    return batch.box_classes[i].ge(0).sum().item<int64_t>();
  return 0;
}

Example ExampleCollector::spread_example(const data::Batch& batch, const models::Output& output,
                                         int64_t i, int64_t sample) const {
  Example example;
  example.sample = sample;
  example.image = on_host(batch.image[i]);
  if (batch.leaf_tokens.defined())
    example.leaves = {on_host(batch.leaf_tokens[i]), on_host(batch.leaf_boxes[i])};
  if (task_ == models::Task::segmentation) {
    example.truth = batch.label[i].to(at::kCPU).clone();
    example.predicted_mask = output.output[i].argmax(0).to(at::kCPU);
  } else if (task_ == models::Task::detection) {
    example.has_boxes = true;
    if (batch.boxes.defined())
      example.true_boxes = models::true_boxes_of(batch.boxes[i], batch.box_classes[i]);
    example.found_boxes = models::found_boxes(output.output[i], output.boxes[i], model_,
                                              model_.image_size, model_.detection.min_score);
  } else {
    example.output = on_host(output.output[i]);
    example.mask = on_host(output.mask[i]);
  }
  return example;
}

}  // namespace vitrail::train
