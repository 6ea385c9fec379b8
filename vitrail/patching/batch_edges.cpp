// Bytes, edges and importance of batches.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>

#include "vitrail/core/error.h"
#include "vitrail/patching/adaptive.h"
#include "vitrail/patching/batch.h"
#include "vitrail/patching/device_edges.h"
#include "vitrail/patching/edges_strips.h"
#include "vitrail/patching/importance.h"
#include "vitrail/patching/stream.h"

namespace vitrail::patching {
namespace {

void check_array(const char* name, const at::Tensor& tensor, at::ScalarType type) {
  VT_CHECK(tensor.defined() && tensor.scalar_type() == type && tensor.is_contiguous(),
           "[patching] {} must be a contiguous tensor of type {}", name, c10::toString(type));
}

void check_images(const char* name, const at::Tensor& images, at::ScalarType type) {
  check_array(name, images, type);
  VT_CHECK(images.dim() == 4 || images.dim() == 5,
           "[patching] {} must be [B, C, sides...] of 2 or 3 sides but has {} axes", name,
           images.dim());
  VT_CHECK(images.size(0) == 0 || images.numel() > 0, "[patching] {} must have pixels", name);
}

/// `rows` beside images: one device, the same samples.
void check_beside(const char* name, const at::Tensor& rows, const at::Tensor& images,
                  at::IntArrayRef shape) {
  VT_CHECK(rows.sizes() == shape && rows.device() == images.device(),
           "[patching] {} must be [B = {}, ...] with {} values, on the images' device", name,
           images.size(0), c10::multiply_integers(shape));
}

template <class T>
std::span<const T> row_of(const at::Tensor& tensor, int64_t b) {
  const auto values = static_cast<size_t>(tensor.numel() / tensor.size(0));
  return {tensor.const_data_ptr<T>() + static_cast<size_t>(b) * values, values};
}

template <class T>
std::span<T> mutable_row_of(const at::Tensor& tensor, int64_t b) {
  const auto values = static_cast<size_t>(tensor.numel() / tensor.size(0));
  return {tensor.mutable_data_ptr<T>() + static_cast<size_t>(b) * values, values};
}

void sample_to_bytes(const at::Tensor& image, const at::Tensor& range_BC2, int64_t b,
                     const at::Tensor& bytes) {
  const auto range = range_BC2.defined() ? row_of<float>(range_BC2, b) : std::span<const float>();
  const int64_t broken =
      round_image(row_of<float>(image, b), image.size(1), range, mutable_row_of<uint8_t>(bytes, b));
  VT_CHECK(broken < 0,
           "[patching] every pixel must be a finite number but channel {} of the batch's sample {} "
           "has others",
           broken, b);
}

/// Strips of one sample at once.
void run_at_once(int64_t count, const std::function<void(int64_t)>& part) {
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) part(i);
  });
}

void maps_on_host(const at::Tensor& bytes, const LeafOptions& options, const at::Tensor& edges_B3,
                  const at::Tensor& maps) {
  const auto sides = bytes.sizes().slice(2);
  const auto map_of = [&](int64_t b, const Runner& run) {
    const std::span<const int32_t> edges = row_of<int32_t>(edges_B3, b);
    importance_map(row_of<uint8_t>(bytes, b), bytes.size(1), {sides.data(), sides.size()}, options,
                   {edges[0], edges[1], edges[2]}, mutable_row_of<uint8_t>(maps, b), run);
  };
  if (bytes.size(0) < at::get_num_threads()) {
    for (int64_t b = 0; b < bytes.size(0); ++b) map_of(b, run_at_once);
    return;
  }
  run_at_once(bytes.size(0), [&](int64_t b) { map_of(b, {}); });
}

void maps_on_device(const at::Tensor& bytes, Importance importance, const at::Tensor& edges_B3,
                    const at::Tensor& maps) {
  const c10::DeviceGuard guard(bytes.device());
  void* stream = current_stream(bytes.device());
  VT_CHECK(maps.numel() / maps.size(0) <= INT32_MAX,
           "[patching] a sample on a GPU must have fewer than 2^31 pixels but got {}",
           maps.numel() / maps.size(0));
  EdgeBatch batch;
  batch.bytes = bytes.const_data_ptr<uint8_t>();
  batch.options = edges_B3.const_data_ptr<int32_t>();
  batch.batch = bytes.size(0), batch.channels = bytes.size(1);
  batch.is_volume = bytes.dim() == 5;
  for (int64_t axis = bytes.dim() - 1, i = 2; axis >= 2; --axis, --i)
    batch.sides[i] = static_cast<int32_t>(bytes.size(axis));
  batch.map = maps.mutable_data_ptr<uint8_t>();
  if (importance == Importance::variance) return variance_maps(batch, stream);
  const at::Tensor blurred = at::empty_like(bytes);
  batch.blurred = blurred.mutable_data_ptr<uint8_t>();
  if (importance == Importance::gradient) return gradient_maps(batch, stream);
  const at::Tensor norms = at::empty_like(maps, at::kInt), states = at::empty_like(maps);
  batch.norms = norms.mutable_data_ptr<int32_t>();
  batch.states = states.mutable_data_ptr<uint8_t>();
  edge_maps(batch, stream);
}

}  // namespace

at::Tensor edge_options(const LeafOptions& options, uint64_t seed, int64_t epoch,
                        const at::Tensor& sample_ids, bool training) {
  check_array("sample_ids", sample_ids, at::kLong);
  const int64_t batch = sample_ids.numel();
  at::Tensor rows = at::empty({batch, 3}, sample_ids.options().dtype(at::kInt));
  if (!training) {
    const EdgeOptions fixed;
    rows.select(1, 0).fill_(fixed.blur);
    rows.select(1, 1).fill_(fixed.low);
    rows.select(1, 2).fill_(fixed.high);
    return rows;
  }
  if (!sample_ids.is_cpu()) {
    // Another program's rules are followed on the host, where its leaves are made.
    if (options.compat)
      return edge_options(options, seed, epoch, sample_ids.to(at::kCPU), training)
          .to(rows.device());
    const c10::DeviceGuard guard(sample_ids.device());
    draw_edge_options(sample_ids.const_data_ptr<int64_t>(), batch, seed, epoch,
                      rows.mutable_data_ptr<int32_t>(), current_stream(sample_ids.device()));
    return rows;
  }
  for (int64_t b = 0; b < batch; ++b) {
    const EdgeOptions drawn =
        training_edges(options, seed, epoch, sample_ids.const_data_ptr<int64_t>()[b]);
    auto* row = rows.mutable_data_ptr<int32_t>() + 3 * b;
    row[0] = static_cast<int32_t>(drawn.blur);
    row[1] = static_cast<int32_t>(drawn.low);
    row[2] = static_cast<int32_t>(drawn.high);
  }
  return rows;
}

at::Tensor to_bytes(const at::Tensor& image_, const at::Tensor& range_BC2) {
  const at::Tensor image = image_.detach().contiguous();
  check_images("the image", image, at::kFloat);
  if (range_BC2.defined()) {
    check_array("the range", range_BC2, at::kFloat);
    check_beside("the range", range_BC2, image, {image.size(0), image.size(1), 2});
  }
  at::Tensor bytes = at::empty(image.sizes(), image.options().dtype(at::kByte));
  if (image.size(0) == 0) return bytes;
  if (image.is_cpu()) {
    run_at_once(image.size(0), [&](int64_t b) { sample_to_bytes(image, range_BC2, b, bytes); });
    return bytes;
  }
  const c10::DeviceGuard guard(image.device());
  const at::Tensor limits =
      at::zeros({image.size(0), image.size(1), 2}, bytes.options().dtype(at::kInt));
  const at::Tensor scales = at::empty(limits.sizes(), image.options());
  ByteBatch batch;
  batch.image = image.const_data_ptr<float>();
  batch.range = range_BC2.defined() ? range_BC2.const_data_ptr<float>() : nullptr;
  batch.batch = image.size(0), batch.channels = image.size(1);
  batch.pixels = image.numel() / (batch.batch * batch.channels);
  batch.limits = static_cast<uint32_t*>(limits.mutable_data_ptr());
  batch.scales = static_cast<Scale*>(scales.mutable_data_ptr());
  batch.bytes = bytes.mutable_data_ptr<uint8_t>();
  to_bytes(batch, current_stream(image.device()));
  return bytes;
}

at::Tensor importance_maps(const at::Tensor& bytes, const LeafOptions& options,
                           const at::Tensor& edges_B3) {
  check_images("the bytes", bytes, at::kByte);
  VT_CHECK(options.importance != Importance::given ||
               (options.importance_channel >= 0 && options.importance_channel < bytes.size(1)),
           "[patching] the channel that gives importance must be one of {} but got {}",
           bytes.size(1), options.importance_channel);
  if (options.importance == Importance::given)
    return bytes.select(1, options.importance_channel).contiguous();
  check_array("the edges' options", edges_B3, at::kInt);
  check_beside("the edges' options", edges_B3, bytes, {bytes.size(0), 3});
  std::vector<int64_t> shape = bytes.sizes().vec();
  shape.erase(shape.begin() + 1);
  at::Tensor maps = at::empty(shape, bytes.options());
  if (bytes.size(0) == 0) return maps;
  if (bytes.is_cpu())
    maps_on_host(bytes, options, edges_B3, maps);
  else
    maps_on_device(bytes, options.importance, edges_B3, maps);
  return maps;
}

}  // namespace vitrail::patching
