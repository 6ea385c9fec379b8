#pragma once
// Batches of random trees, for the tests of batch.h on the CPU and on the GPU.

#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>

#include "tests/patching/resample_cases.h"

namespace vitrail::patching::test {

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, const std::vector<int64_t>& shape,
                     at::ScalarType type) {
  return at::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions(type)).clone();
}

/// As many samples as trees, all of one image size; shorter lists of leaves end in padding.
struct BatchCase {
  std::vector<int64_t> sides;
  int64_t channels = 2, patch = 4, leaves = 0;
  at::Tensor image, tokens, boxes, labels;

  std::vector<int64_t> image_shape() const {
    std::vector<int64_t> shape{image.size(0), channels};
    shape.insert(shape.end(), sides.begin(), sides.end());
    return shape;
  }
};

inline BatchCase batch_case(const std::vector<int64_t>& sides, int64_t batch, int64_t least,
                            int64_t patch, int64_t classes = 3) {
  BatchCase made{sides, 2, patch};
  std::vector<Case> samples;
  for (int64_t b = 0; b < batch; ++b) {
    samples.push_back(Case{sides, made.channels, patch, {}});
    int64_t root = least;
    while (root < *std::max_element(sides.begin(), sides.end())) root *= 2;
    uint32_t draws = 0;
    grow(samples.back(), static_cast<uint64_t>(b), draws, std::vector<int64_t>(sides.size(), 0),
         root, least);
    made.leaves = std::max(made.leaves, samples.back().leaves() + 1);
  }
  std::vector<at::Tensor> images, boxes, tokens, labels;
  for (size_t b = 0; b < samples.size(); ++b) {
    Case& sample = samples[b];
    const auto axes = sample.axes();
    sample.boxes.resize(static_cast<size_t>(made.leaves * 2 * axes), 0.0f);
    std::vector<int64_t> shape = sides;
    labels.push_back(tensor_of(random_classes(static_cast<size_t>(sample.pixels()), classes, b),
                               shape, at::kLong));
    shape.insert(shape.begin(), made.channels);
    images.push_back(tensor_of(random_values(static_cast<size_t>(sample.image_values()), 10 + b),
                               shape, at::kFloat));
    boxes.push_back(tensor_of(sample.boxes, {made.leaves, 2 * axes}, at::kFloat));
    tokens.push_back(tensor_of(random_values(static_cast<size_t>(sample.token_values()), 90 + b),
                               {made.channels, made.leaves, sample.patch_pixels()}, at::kFloat));
  }
  made.image = at::stack(images);
  made.boxes = at::stack(boxes);
  made.tokens = at::stack(tokens);
  made.labels = at::stack(labels);
  return made;
}

}  // namespace vitrail::patching::test
