#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/resample.h"
#include "vitrail/patching/resample_leaves.h"
#include "vitrail/patching/stream.h"

namespace vitrail::patching {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMostPixels = int64_t{1}
                                << 30;  // a grid's threads count on from there in 32 bits

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

/// The batch's sizes, checked against the boxes.
LeafBatch leaf_batch(const at::Tensor& boxes, at::IntArrayRef sides, int64_t batch,
                     int64_t channels, int64_t patch_size, at::Device device) {
  const auto axes = std::ssize(sides);
  VT_CHECK(axes == 2 || axes == 3, "[patching] images must have 2 or 3 sides but got {}", axes);
  VT_CHECK(patch_size >= 1 && patch_size <= kLargestPatch,
           "[patching] the patch size must be 1 to {} but got {}", kLargestPatch, patch_size);
  int64_t pixels = 1;
  for (const int64_t side : sides) {
    VT_CHECK(side >= 1 && side * patch_size < kMostPlaces,
             "[patching] sides must be at least 1, times patch size below 2^28, but are {}",
             fmt::join(sides, " x "));
    pixels *= side;
    VT_CHECK(pixels <= kMostPixels, "[patching] a sample must have at most 2^30 pixels but is {}",
             fmt::join(sides, " x "));
  }
  VT_CHECK(boxes.dim() == 3 && boxes.size(0) == batch && boxes.size(2) == 2 * axes &&
               boxes.scalar_type() == at::kFloat && boxes.device() == device,
           "[patching] the boxes of {} samples must be floats [{}, leaves, {}] on the images' "
           "device but are [{}]",
           batch, batch, 2 * axes, fmt::join(boxes.sizes(), ", "));
  LeafBatch leaves;
  leaves.batch = batch;
  leaves.leaves = boxes.size(1);
  leaves.channels = channels;
  leaves.axes = static_cast<int32_t>(axes);
  leaves.patch_size = static_cast<int32_t>(patch_size);
  for (int64_t a = 0; a < axes; ++a)
    leaves.sides[3 - axes + a] = static_cast<int32_t>(sides[static_cast<size_t>(a)]);
  VT_CHECK(leaves.patch_pixels() <= kMostPixels && batch * leaves.leaves < INT32_MAX,
           "[patching] a patch must have at most 2^30 pixels and a batch fewer than 2^31 leaves, "
           "but got {}^{} and {} x {}",
           patch_size, axes, batch, leaves.leaves);
  return leaves;
}

/// run(stream) with the tensors' device as the current one.
template <class Run>
void on_gpu(at::Device device, Run&& run) {
  const c10::DeviceGuard guard(device);
  run(current_stream(device));
}

/// Boxes of every sample, read on the host.
std::vector<LeafBoxes> host_boxes(const at::Tensor& boxes, at::IntArrayRef sides) {
  const auto values = static_cast<size_t>(boxes.size(1) * boxes.size(2));
  std::vector<LeafBoxes> samples;
  for (int64_t b = 0; b < boxes.size(0); ++b)
    samples.emplace_back(
        std::span(boxes.const_data_ptr<float>() + static_cast<size_t>(b) * values, values),
        std::span(sides.begin(), sides.size()));
  return samples;
}

/// body(b, first leaf, last) on the pool's threads, a sample or a part of one at a time.
template <class Body>
void for_leaves(const LeafBatch& leaves, Body&& body) {
  constexpr int64_t kLeastValues = 1 << 16;  // worth a thread
  const int64_t values = leaves.channels * leaves.patch_pixels();
  const int64_t grain = std::max<int64_t>(1, kLeastValues / std::max<int64_t>(1, values));
  at::parallel_for(0, leaves.batch * leaves.leaves, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t b = begin / leaves.leaves, first = b * leaves.leaves;
      const int64_t last = std::min(end, first + leaves.leaves);
      body(b, begin - first, last - first);
      begin = last;
    }
  });
}

/// One of the four maps over a batch, and what its gradient needs to know.
struct LeafCall {
  LeafMap map;
  int64_t patch_size = 0;
  std::vector<int64_t> sides;

  LeafCall adjoint() const {
    LeafCall other = *this;
    other.map.is_adjoint = !map.is_adjoint;
    return other;
  }
};

/// in: [B, C, sides...] or [B, C, L, P^k], contiguous floats.
at::Tensor run_map(const LeafCall& call, const at::Tensor& in, const at::Tensor& boxes) {
  LeafBatch leaves =
      leaf_batch(boxes, call.sides, in.size(0), in.size(1), call.patch_size, in.device());
  leaves.boxes = boxes.const_data_ptr<float>();
  std::vector<int64_t> shape{leaves.batch, leaves.channels};
  const bool to_patch = call.map.to_patch();
  if (to_patch) {
    shape.insert(shape.end(), {leaves.leaves, leaves.patch_pixels()});
  } else {
    shape.insert(shape.end(), call.sides.begin(), call.sides.end());
  }
  const at::Tensor out = to_patch ? at::empty(shape, in.options()) : at::zeros(shape, in.options());
  const float* from = in.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  if (in.is_cuda()) {
    on_gpu(in.device(), [&](void* stream) { resample_gpu(call.map, leaves, from, to, stream); });
    return out;
  }
  const std::vector<LeafBoxes> samples = host_boxes(boxes, call.sides);
  const int64_t in_row = in.numel() / std::max<int64_t>(1, leaves.batch),
                out_row = out.numel() / std::max<int64_t>(1, leaves.batch);
  for_leaves(leaves, [&](int64_t b, int64_t begin, int64_t end) {
    LeafResampler resampler(call.map, leaves.channels, call.patch_size);
    for (int64_t leaf = begin; leaf < end; ++leaf)
      resampler(samples[static_cast<size_t>(b)], leaf, from + b * in_row, to + b * out_row);
  });
  return out;
}

/// Its gradient is the same function of the adjoint map, so that it has gradients itself.
struct ResampleFunction : torch::autograd::Function<ResampleFunction> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& in, const at::Tensor& boxes,
                            const LeafCall& call) {
    node->save_for_backward({boxes});
    node->saved_data["sides"] = call.sides;
    node->saved_data["patch_size"] = call.patch_size;
    node->saved_data["method"] = static_cast<int64_t>(call.map.method);
    node->saved_data["is_paste"] = call.map.is_paste;
    node->saved_data["is_adjoint"] = call.map.is_adjoint;
    return run_map(call, in.contiguous(), boxes);
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    auto& saved = node->saved_data;
    LeafCall call;
    call.sides = saved["sides"].toIntVector();
    call.patch_size = saved["patch_size"].toInt();
    call.map = {static_cast<Resample>(saved["method"].toInt()), saved["is_paste"].toBool(),
                saved["is_adjoint"].toBool()};
    const at::Tensor boxes = node->get_saved_variables()[0];
    return {apply(gradients[0], boxes, call.adjoint()), at::Tensor(), at::Tensor()};
  }
};

at::Tensor resampled(const LeafCall& call, const at::Tensor& in, const at::Tensor& boxes) {
  VT_CHECK(in.is_floating_point(), "[patching] pixels and tokens must be floating-point numbers");
  return ResampleFunction::apply(in.to(at::kFloat), boxes.detach().contiguous(), call);
}

void check_labels(const at::Tensor& labels) {
  VT_CHECK((labels.dim() == 3 || labels.dim() == 4) && labels.scalar_type() == at::kLong,
           "[patching] labels must be int64 [B, sides...] but are [{}]",
           fmt::join(labels.sizes(), ", "));
}

}  // namespace

at::Tensor serialise(const at::Tensor& image, const at::Tensor& boxes, int64_t patch_size,
                     Resample resample) {
  VT_CHECK(image.dim() == 4 || image.dim() == 5,
           "[patching] images must be [B, C, sides...] but are [{}]",
           fmt::join(image.sizes(), ", "));
  return resampled({{resample, false, false}, patch_size, image.sizes().slice(2).vec()}, image,
                   boxes);
}

at::Tensor paste(const at::Tensor& tokens, const at::Tensor& boxes, at::IntArrayRef sides,
                 Resample resample) {
  const auto axes = std::ssize(sides);
  VT_CHECK(tokens.dim() == 4 && boxes.dim() == 3 && tokens.size(2) == boxes.size(1),
           "[patching] tokens must be [B, C, leaves, pixels] for boxes [B, leaves, ...] but are "
           "[{}] for [{}]",
           fmt::join(tokens.sizes(), ", "), fmt::join(boxes.sizes(), ", "));
  const auto edge = static_cast<int64_t>(std::llround(std::pow(
      static_cast<double>(tokens.size(3)), 1.0 / static_cast<double>(std::max<int64_t>(axes, 1)))));
  VT_CHECK(power(edge, axes) == tokens.size(3),
           "[patching] tokens of {} pixels are no patches of {} sides", tokens.size(3), axes);
  return resampled({{resample, true, false}, edge, sides.vec()}, tokens, boxes);
}

at::Tensor serialise_labels(const at::Tensor& labels, const at::Tensor& boxes, int64_t patch_size,
                            LabelRule rule) {
  check_labels(labels);
  const at::Tensor in = labels.contiguous(), places = boxes.detach().contiguous();
  const at::IntArrayRef sides = in.sizes().slice(1);
  LeafBatch leaves = leaf_batch(places, sides, in.size(0), 1, patch_size, in.device());
  leaves.boxes = places.const_data_ptr<float>();
  const at::Tensor out =
      at::empty({leaves.batch, leaves.leaves, leaves.patch_pixels()}, in.options());
  const int64_t* from = in.const_data_ptr<int64_t>();
  auto* to = out.mutable_data_ptr<int64_t>();
  if (in.is_cuda()) {
    on_gpu(in.device(),
           [&](void* stream) { serialise_labels_gpu(rule, leaves, from, to, stream); });
    return out;
  }
  const std::vector<LeafBoxes> samples = host_boxes(places, sides);
  for_leaves(leaves, [&](int64_t b, int64_t begin, int64_t end) {
    for (int64_t leaf = begin; leaf < end; ++leaf)
      label_leaf(rule, patch_size, samples[static_cast<size_t>(b)], leaf,
                 from + b * leaves.pixels(), to + b * leaves.leaves * leaves.patch_pixels());
  });
  return out;
}

at::Tensor serialise_shares(const at::Tensor& labels, int64_t classes, const at::Tensor& boxes,
                            int64_t patch_size) {
  check_labels(labels);
  VT_CHECK(classes >= 1, "[patching] shares need at least 1 class but got {}", classes);
  const at::Tensor in = labels.contiguous(), places = boxes.detach().contiguous();
  const at::IntArrayRef sides = in.sizes().slice(1);
  LeafBatch leaves = leaf_batch(places, sides, in.size(0), classes, patch_size, in.device());
  leaves.boxes = places.const_data_ptr<float>();
  const at::Tensor out = at::empty({leaves.batch, classes, leaves.leaves, leaves.patch_pixels()},
                                   in.options().dtype(at::kFloat));
  const int64_t* from = in.const_data_ptr<int64_t>();
  auto* to = out.mutable_data_ptr<float>();
  if (in.is_cuda()) {
    on_gpu(in.device(), [&](void* stream) { serialise_shares_gpu(leaves, from, to, stream); });
    return out;
  }
  const std::vector<LeafBoxes> samples = host_boxes(places, sides);
  const int64_t out_row = out.numel() / std::max<int64_t>(1, leaves.batch);
  for_leaves(leaves, [&](int64_t b, int64_t begin, int64_t end) {
    for (int64_t leaf = begin; leaf < end; ++leaf)
      share_leaf(classes, patch_size, samples[static_cast<size_t>(b)], leaf,
                 from + b * leaves.pixels(), to + b * out_row);
  });
  return out;
}

}  // namespace vitrail::patching
