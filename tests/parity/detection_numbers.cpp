// Numbers of detection for tests/parity/detection.py: reads cases from standard input, a word and its numbers each, and
// writes a line of results for each.
//   overlap N                  N pairs of boxes (corners): IoU, GIoU and GIoU's gradient of each of the 8 numbers
//   assign ROWS COLUMNS        a cost matrix: the column of each row
//   coco CLASSES IMAGES        of each image F, F found boxes (corners, class, score), T and T true ones (corners, class, area,
//                              crowd): pycocotools' twelve numbers, then the precision of each class

#include <iostream>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "vitrail/models/matching.h"
#include "vitrail/models/metrics_detection.h"
#include "vitrail/ops/boxes.h"

namespace {

using namespace vitrail;

template <class T>
T read() {
  T value{};
  if (!(std::cin >> value)) throw std::runtime_error("the cases end too early");
  return value;
}

std::vector<double> read_numbers(int64_t count) {
  std::vector<double> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(read<double>());
  return numbers;
}

std::string line;
template <class T>
void put(T value) {
  line += fmt::format("{} ", value);
}

void overlap() {
  const auto count = read<int64_t>();
  const at::Tensor pairs =
      at::tensor(read_numbers(8 * count), at::kDouble).view({count, 8}).set_requires_grad(true);
  const at::Tensor a = pairs.slice(1, 0, 4), b = pairs.slice(1, 4, 8);
  const at::Tensor iou = ops::box_iou(a, b), giou = ops::generalised_iou(a, b);
  giou.sum().backward();
  for (const at::Tensor& numbers : {iou.detach(), giou.detach(), pairs.grad().flatten()})
    for (int64_t i = 0; i < numbers.numel(); ++i) put(numbers[i].item<double>());
}

void assign() {
  const auto rows = read<int64_t>(), columns = read<int64_t>();
  for (const int64_t column : models::assign(read_numbers(rows * columns), rows, columns))
    put(column);
}

models::FoundBox read_found() {
  const std::vector<double> n = read_numbers(6);
  return {{n[0], n[1], n[2], n[3]}, static_cast<int64_t>(n[4]), n[5]};
}

models::TrueBox read_true() {
  const std::vector<double> n = read_numbers(7);
  return {{n[0], n[1], n[2], n[3]}, static_cast<int64_t>(n[4]), n[5], n[6] != 0};
}

void coco() {
  const auto classes = read<int64_t>(), images = read<int64_t>();
  std::vector<models::ScoredBox> boxes;
  std::vector<int64_t> truths(static_cast<size_t>(classes * models::kAreaRanges), 0);
  for (int64_t image = 0; image < images; ++image) {
    std::vector<models::FoundBox> found;
    std::vector<models::TrueBox> truth;
    for (auto left = read<int64_t>(); left > 0; --left) found.push_back(read_found());
    for (auto left = read<int64_t>(); left > 0; --left) truth.push_back(read_true());
    const models::ImageScores scores = models::score_image(image, found, truth, classes);
    boxes.insert(boxes.begin(), scores.boxes.begin(), scores.boxes.end());
    for (size_t i = 0; i < truths.size(); ++i) truths[i] += scores.truths[i];
  }
  const models::CocoMetrics m = models::coco_metrics(boxes, truths, classes);
  for (const double value : {m.ap, m.ap50, m.ap75, m.ap_small, m.ap_medium, m.ap_large, m.ar1,
                             m.ar10, m.ar100, m.ar_small, m.ar_medium, m.ar_large})
    put(value);
  for (const double value : m.class_ap) put(value);
}

}  // namespace

int main() {
  for (std::string word; std::cin >> word;) {
    line.clear();
    if (word == "overlap") overlap();
    if (word == "assign") assign();
    if (word == "coco") coco();
    fmt::print("{}\n", line);
  }
}
