#pragma once
/// Batches of a fixed pattern through a source's augment list.

#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "tests/data/test_data.h"
#include "vitrail/data/augment_batch.h"
#include "vitrail/data/augment_draws.h"
#include "vitrail/data/transform.h"
#include "vitrail/kernels/augment.h"

namespace vitrail::data::test {

inline config::Source with_steps(std::vector<std::string> steps) {
  config::Source source;
  source.augment = std::move(steps);
  source.mean = {0.45};
  source.std = {0.225};
  return source;
}

/// n samples of noise (and masks, boxes or values) as a loader would bring them, and after augmented().
struct Augmented {
  Transform transform;
  std::vector<Decoded> files;
  Batch staged, batch;

  Augmented(const config::Source& source, const config::Model& model, int64_t n,
            bool same_image = false, AugmentPlace first = {1, 0, 0}, bool image_is_class = false,
            bool image_is_value = false)
      : transform(source, model, /*training=*/true, /*raw=*/false) {
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t number = same_image ? 0 : static_cast<uint64_t>(first.index + i);
      Pixels pixels = noise(model.image_size, model.in_channels, number);
      if (image_is_class) make_blocks(pixels);
      Mask mask;
      if (segments(model)) {
        mask.sides = model.image_size;
        for (size_t p = 0; p < static_cast<size_t>(count(mask.sides)); ++p)
          mask.classes.push_back(image_is_class
                                     ? pixels.values[p]
                                     : pixels.values[p * static_cast<size_t>(model.in_channels)] %
                                           model.num_classes);
      }
      files.push_back(transform.prepare(pixels, mask, "file"));
    }
    fill(model, first, image_is_value, {});
  }

  /// One black image with a white box.
  Augmented(const config::Source& source, const config::Model& model, const LabelledBox& box,
            AugmentPlace place)
      : transform(source, model, true, false) {
    Pixels pixels = noise(model.image_size, 1);
    for (int64_t y = 0; y < pixels.sides[0]; ++y)
      for (int64_t x = 0; x < pixels.sides[1]; ++x) {
        const bool is_in = static_cast<float>(x) >= box.x0 && static_cast<float>(x) < box.x1 &&
                           static_cast<float>(y) >= box.y0 && static_cast<float>(y) < box.y1;
        pixels.values[static_cast<size_t>(y * pixels.sides[1] + x)] = is_in ? 255 : 0;
      }
    files.push_back(transform.prepare(pixels, {}, "file"));
    fill(model, place, false, {box});
  }

 private:
  /// Blocks of 8 pixels along every axis have one value from 1 to 199.
  static void make_blocks(Pixels& pixels) {
    size_t p = 0;
    for (uint8_t& value : pixels.values) {
      size_t rest = p++, block = 0;
      for (size_t axis = pixels.sides.size(); axis-- > 0;) {
        block = block * 7 + rest % static_cast<size_t>(pixels.sides[axis]) / 8;
        rest /= static_cast<size_t>(pixels.sides[axis]);
      }
      value = static_cast<uint8_t>(1 + block * 37 % 199);
    }
  }

  void fill(const config::Model& model, AugmentPlace first, bool image_is_value,
            const std::vector<LabelledBox>& boxes) {
    if (transform.wants_plan()) transform.use_plan(transform.plan_slots() + 1);
    const auto n = static_cast<int64_t>(files.size());
    std::vector<int64_t> shape{n, model.in_channels};
    for (const int64_t side : transform.staging_sides()) shape.push_back(side);
    staged.image = at::empty(shape, at::kFloat);
    if (transform.has_plan())
      staged.augment_plan = at::empty({n, transform.plan_bytes()}, at::kByte);
    const bool has_masks = !files[0].mask.empty();
    if (image_is_value) {
      staged.label = at::empty_like(staged.image);
    } else if (has_masks) {
      shape.erase(shape.begin() + 1);
      staged.label = at::empty(shape, at::kLong);
    } else {
      staged.label = at::empty({n}, at::kLong);
      for (int64_t b = 0; b < n; ++b) staged.label[b] = (first.index + b) * 7 % 10;
    }
    if (!boxes.empty()) {
      staged.boxes = at::empty({n, 2, 4}, at::kFloat);
      staged.box_classes = at::empty({n, 2}, at::kLong);
    }
    for (int64_t b = 0; b < n; ++b) place(first, b, image_is_value, has_masks, boxes);
    batch = staged;
    batch.image = staged.image.clone();
    if (staged.label.dim() > 1) batch.label = staged.label.clone();
    if (!boxes.empty()) {
      batch.boxes = staged.boxes.clone();
      batch.box_classes = staged.box_classes.clone();
    }
    batch = augmented(batch, model.image_size);
  }

  void place(AugmentPlace first, int64_t b, bool image_is_value, bool has_masks,
             const std::vector<LabelledBox>& boxes) {
    const Decoded& file = files[static_cast<size_t>(b)];
    AugmentPlace at = first;
    at.index += b;
    Placed out;
    out.image = staged.image[b].mutable_data_ptr<float>();
    if (has_masks) out.mask = staged.label[b].mutable_data_ptr<int64_t>();
    if (image_is_value) out.values = staged.label[b].mutable_data_ptr<float>();
    if (!boxes.empty()) {
      out.boxes = staged.boxes[b].mutable_data_ptr<float>();
      out.box_classes = staged.box_classes[b].mutable_data_ptr<int64_t>();
      out.max_boxes = 2;
    }
    if (transform.has_plan()) out.plan = staged.augment_plan[b].mutable_data_ptr<uint8_t>();
    Pixels values;
    if (image_is_value) {
      values.sides = file.image.sides;
      values.channels = file.image.channels;
      values.floats.assign(file.image.values.begin(), file.image.values.end());
    }
    const Window window = transform.narrow(whole_window(0, file.image.sides), at);
    transform.apply(file, {image_is_value ? &values : nullptr, &boxes}, window, at, out);
  }
};

inline const kernels::AugmentHeader& header_of(const Augmented& made, int64_t b) {
  return *reinterpret_cast<const kernels::AugmentHeader*>(
      made.staged.augment_plan.const_data_ptr<uint8_t>() + b * made.staged.augment_plan.size(1));
}
inline const kernels::AugmentSlot* slots_of(const Augmented& made, int64_t b) {
  return reinterpret_cast<const kernels::AugmentSlot*>(&header_of(made, b) + 1);
}

}  // namespace vitrail::data::test
