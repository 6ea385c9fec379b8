#pragma once
/// Images, options and plain loops for the tests of mixed-resolution tokens.

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ops/arange.h>

#include "tests/models/tiny_models.h"
#include "vitrail/models/mixed_resolution.h"

namespace vitrail::models {

/// Images of 32 x 48 in patches of 4, 8 and 16: 6 at the start.
inline config::Model mixed_options(const char* scorer, int64_t tokens = 30) {
  config::Model options = tiny("vit");
  options.image_size = {32, 48};
  options.in_channels = 3;
  options.patch_size = 4;
  options.mixed_resolution.num_tokens = tokens;
  options.mixed_resolution.max_patch = 16;
  options.mixed_resolution.scorer.value = scorer;
  return options;
}

/// Every sample rough in a corner of its own.
inline at::Tensor mixed_images(const config::Model& options, int64_t size) {
  const int64_t height = options.image_size[0], width = options.image_size[1];
  at::Tensor image = random({size, options.in_channels, height, width}) * 0.1;
  for (int64_t b = 0; b < size; ++b) {
    const int64_t y = b % 2 * (height / 2), x = b / 2 % 2 * (width / 2);
    image[b].slice(1, y, y + height / 4).slice(2, x, x + width / 4).mul_(10.0);
  }
  return image;
}

inline nn::Draws mixed_draws(int64_t size, bool training = false, uint32_t step = 7,
                             int64_t first_id = 0) {
  return {3, step, at::arange(first_id, first_id + size, at::kLong), training};
}

using Plane = std::vector<std::vector<double>>;

inline Plane plane_of(const at::Tensor& image, int64_t b, int64_t c) {
  const at::Tensor plane = image[b][c].contiguous();
  Plane values(plane.size(0), std::vector<double>(plane.size(1)));
  for (int64_t y = 0; y < plane.size(0); ++y)
    for (int64_t x = 0; x < plane.size(1); ++x)
      values[y][x] = plane.const_data_ptr<float>()[y * plane.size(1) + x];
  return values;
}

/// Bilinear, half-pixel centres, edges repeated.
inline Plane plain_resize(const Plane& from, size_t height, size_t width) {
  const auto place = [](size_t i, size_t old_side, size_t new_side) {
    const double ratio = static_cast<double>(old_side) / static_cast<double>(new_side);
    return std::max(0.0, (static_cast<double>(i) + 0.5) * ratio - 0.5);
  };
  Plane to(height, std::vector<double>(width));
  for (size_t y = 0; y < height; ++y)
    for (size_t x = 0; x < width; ++x) {
      const double py = place(y, from.size(), height), px = place(x, from[0].size(), width);
      const auto y0 = static_cast<size_t>(py), x0 = static_cast<size_t>(px);
      const size_t y1 = std::min(y0 + 1, from.size() - 1),
                   x1 = std::min(x0 + 1, from[0].size() - 1);
      const double fy = py - static_cast<double>(y0), fx = px - static_cast<double>(x0);
      to[y][x] = (from[y0][x0] * (1 - fx) + from[y0][x1] * fx) * (1 - fy) +
                 (from[y1][x0] * (1 - fx) + from[y1][x1] * fx) * fy;
    }
  return to;
}

/// A live patch of the plain division.
struct PlainPatch {
  int64_t level, y, x;  // in patches of the level
};

/// Greedy division by scanning all live patches of one sample, in Morton order.
inline std::vector<PlainPatch> plain_division(const std::vector<at::Tensor>& scores, int64_t b,
                                              int64_t count) {
  const auto top = static_cast<int64_t>(scores.size()) - 1;
  const auto morton = [](int64_t y, int64_t x) {
    int64_t code = 0;
    for (int bit = 0; bit < 20; ++bit)
      code |= (y >> bit & 1) << (2 * bit + 1) | (x >> bit & 1) << (2 * bit);
    return code;
  };
  std::vector<PlainPatch> live;
  for (int64_t y = 0; y < scores[top].size(1); ++y)
    for (int64_t x = 0; x < scores[top].size(2); ++x) live.push_back({top, y, x});
  std::ranges::sort(live, {}, [&](const PlainPatch& p) { return morton(p.y, p.x); });
  while (static_cast<int64_t>(live.size()) < count) {
    size_t best = live.size();
    const auto score = [&](const PlainPatch& p) {
      return scores[p.level][b][p.y][p.x].item<float>();
    };
    for (size_t i = 0; i < live.size(); ++i) {
      if (live[i].level == 0) continue;
      if (best == live.size() || score(live[i]) > score(live[best]) ||
          (score(live[i]) == score(live[best]) && live[i].level > live[best].level))
        best = i;
    }
    const PlainPatch p = live[best];
    const std::array<PlainPatch, 4> parts{{{p.level - 1, 2 * p.y, 2 * p.x},
                                           {p.level - 1, 2 * p.y, 2 * p.x + 1},
                                           {p.level - 1, 2 * p.y + 1, 2 * p.x},
                                           {p.level - 1, 2 * p.y + 1, 2 * p.x + 1}}};
    live.erase(live.begin() + static_cast<int64_t>(best));
    live.insert(live.begin() + static_cast<int64_t>(best), parts.begin(), parts.end());
  }
  return live;
}

/// Boxes of the plain division, [B, n, 4].
inline at::Tensor plain_boxes(const config::Model& options, const std::vector<at::Tensor>& scores) {
  const int64_t size = scores[0].size(0), n = options.mixed_resolution.num_tokens;
  at::Tensor boxes = at::zeros({size, n, 4}, at::kFloat);
  for (int64_t b = 0; b < size; ++b) {
    const std::vector<PlainPatch> live = plain_division(scores, b, n);
    for (size_t i = 0; i < live.size(); ++i) {
      const auto edge = static_cast<float>(options.patch_size << live[i].level);
      float* box = boxes.mutable_data_ptr<float>() + (b * n + static_cast<int64_t>(i)) * 4;
      box[0] = static_cast<float>(live[i].y) * edge, box[1] = static_cast<float>(live[i].x) * edge;
      box[2] = box[0] + edge, box[3] = box[1] + edge;
    }
  }
  return boxes;
}

/// Random tensors with torchvision's names and shapes of ShuffleNetV2 x0.5; variances are positive.
inline std::vector<nn::NamedTensor> random_shufflenet() {
  std::vector<nn::NamedTensor> tensors;
  uint16_t layer = 500;
  const auto add = [&](const std::string& prefix, int place, const std::vector<int64_t>& shape) {
    const auto name = [&](int i, const char* what) {
      return prefix + "." + std::to_string(i) + "." + what;
    };
    const double fan = static_cast<double>(shape[1] * shape[2] * shape[3]);
    tensors.push_back({name(place, "weight"), random(shape, layer++) * std::sqrt(6.0 / fan)});
    tensors.push_back({name(place + 1, "weight"), random({shape[0]}, layer++) * 0.2 + 1.0});
    tensors.push_back({name(place + 1, "bias"), random({shape[0]}, layer++) * 0.2});
    tensors.push_back({name(place + 1, "running_mean"), random({shape[0]}, layer++) * 0.2});
    tensors.push_back({name(place + 1, "running_var"), random({shape[0]}, layer++) * 0.3 + 1.0});
  };
  add("conv1", 0, {24, 3, 3, 3});
  int64_t in = 24;
  const std::vector<std::pair<int64_t, int>> stages{{48, 4}, {96, 8}, {192, 4}};
  for (size_t stage = 0; stage < stages.size(); ++stage)
    for (int i = 0; i < stages[stage].second; ++i) {
      const std::string unit = "stage" + std::to_string(stage + 2) + "." + std::to_string(i);
      const int64_t half = stages[stage].first / 2;
      if (i == 0) {
        add(unit + ".branch1", 0, {in, 1, 3, 3});
        add(unit + ".branch1", 2, {half, in, 1, 1});
      }
      add(unit + ".branch2", 0, {half, i == 0 ? in : half, 1, 1});
      add(unit + ".branch2", 3, {half, 1, 3, 3});
      add(unit + ".branch2", 5, {half, half, 1, 1});
      in = stages[stage].first;
    }
  add("conv5", 0, {1024, in, 1, 1});
  return tensors;
}

}  // namespace vitrail::models
