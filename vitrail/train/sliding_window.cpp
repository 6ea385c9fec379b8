#include "vitrail/train/sliding_window.h"

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/data/leaves.h"
#include "vitrail/data/windows.h"

namespace vitrail::train {

namespace {

using Starts = std::vector<int64_t>;

/// Every combination of one start per axis, the last axis fastest.
std::vector<Starts> origins(const std::vector<Starts>& per_axis) {
  std::vector<Starts> all{{}};
  for (const Starts& starts : per_axis) {
    std::vector<Starts> longer;
    for (const Starts& origin : all)
      for (const int64_t start : starts) {
        longer.push_back(origin);
        longer.back().push_back(start);
      }
    all = std::move(longer);
  }
  return all;
}

/// The window of x [C, sides...] at `origin`.
at::Tensor window_of(at::Tensor x, const Starts& origin, const std::vector<int64_t>& size) {
  for (size_t axis = 0; axis < size.size(); ++axis)
    x = x.narrow(static_cast<int64_t>(axis) + 1, origin[axis], size[axis]);
  return x;
}

/// The image with `padding` behind the end of every axis that is shorter than the window.
at::Tensor padded(const at::Tensor& image, const std::vector<int64_t>& size,
                  const std::vector<double>& padding) {
  std::vector<int64_t> shape = image.sizes().vec();
  for (size_t axis = 0; axis < size.size(); ++axis)
    shape[axis + 1] = std::max(shape[axis + 1], size[axis]);
  if (image.sizes() == shape) return image;
  at::Tensor whole = at::zeros(shape, image.options());
  for (size_t c = 0; c < padding.size(); ++c) whole[static_cast<int64_t>(c)].fill_(padding[c]);
  window_of(whole, Starts(size.size(), 0), image.sizes().slice(1).vec()).copy_(image);
  return whole;
}

/// Where windows lie in an image.
std::vector<Starts> places_in(const at::Tensor& whole, const std::vector<int64_t>& size,
                              double overlap) {
  std::vector<Starts> per_axis;
  for (size_t axis = 0; axis < size.size(); ++axis)
    per_axis.push_back(
        data::tile_starts(whole.size(static_cast<int64_t>(axis) + 1), size[axis], overlap));
  return origins(per_axis);
}

/// Class probabilities (or values) of some windows [N, classes, sides...], on the host.
at::Tensor shares_of(models::Model& model, const at::Tensor& windows, int64_t first,
                     const SlidingWindow& options, at::Device device) {
  data::Batch batch;
  batch.variables = options.variables;
  batch.image = windows.to(device);
  if (!options.pixel_range.empty())
    batch.pixel_range = data::pixel_ranges(options.pixel_range, windows.size(0)).to(device);
  batch.sample_ids = at::arange(first, first + windows.size(0),
                                at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor output = model.forward(batch, {options.seed, 0, batch.sample_ids, false}).output;
  const bool of_values = model.task() == models::Task::regression;
  return (of_values ? output : at::softmax(output, 1)).to(at::kCPU, at::kFloat);
}

}  // namespace

at::Tensor window_weights(const std::vector<int64_t>& sides) {
  at::Tensor weights = at::ones(sides, at::kFloat);
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    const auto side = static_cast<double>(sides[axis]);
    const at::Tensor offset = at::arange(sides[axis], at::kFloat).sub((side - 1) / 2).div(side / 8);
    std::vector<int64_t> shape(sides.size(), 1);
    shape[axis] = sides[axis];
    weights = weights.mul(offset.square().mul(-0.5).exp().view(shape));
  }
  return weights.clamp_min(1e-3);
}

at::Tensor segment(models::Model& model, const config::Model& options, const at::Tensor& image,
                   at::Device device, const SlidingWindow& window) {
  const c10::NoGradGuard no_grad;
  const std::vector<int64_t>& size = options.image_size;
  const int64_t channels = window.variables.empty() ? options.in_channels
                                                    : static_cast<int64_t>(window.variables.size());
  VT_CHECK(image.dim() == static_cast<int64_t>(size.size()) + 1 && image.size(0) == channels,
           "[segment] an image must be [{}, {} sides] (model.in_channels, model.image_size) but "
           "got [{}]",
           channels, size.size(), fmt::join(image.sizes(), ", "));
  const at::Tensor whole = padded(image, size, window.padding);
  const std::vector<Starts> places = places_in(whole, size, window.overlap);
  const at::Tensor weights = window_weights(size);
  std::vector<int64_t> shape = whole.sizes().vec();
  shape[0] = options.num_classes;
  at::Tensor sums = at::zeros(shape, at::kFloat);
  shape[0] = 1;
  at::Tensor total = at::zeros(shape, at::kFloat);
  const auto step = static_cast<size_t>(window.batch_size);
  for (size_t first = 0; first < places.size(); first += step) {
    const size_t last = std::min(places.size(), first + step);
    std::vector<at::Tensor> pieces;
    for (size_t i = first; i < last; ++i) pieces.push_back(window_of(whole, places[i], size));
    const at::Tensor shares =
        shares_of(model, at::stack(pieces), static_cast<int64_t>(first), window, device);
    for (size_t i = first; i < last; ++i) {
      window_of(sums, places[i], size).add_(shares[static_cast<int64_t>(i - first)] * weights);
      window_of(total, places[i], size).add_(weights);
    }
  }
  const at::Tensor probabilities = sums.div_(total);
  return window_of(probabilities, Starts(size.size(), 0), image.sizes().slice(1).vec())
      .contiguous();
}

}  // namespace vitrail::train
