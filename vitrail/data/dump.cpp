#include "vitrail/data/dump.h"

#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::data {
namespace {

at::Tensor joined(const std::vector<at::Tensor>& parts, std::vector<int64_t> empty_shape,
                  at::ScalarType dtype) {
  return parts.empty() ? at::empty(empty_shape, dtype) : at::cat(parts);
}

at::Tensor sources_of(const Loader& loader, const at::Tensor& index) {
  at::Tensor source = at::empty(index.sizes(), at::kLong);
  const int64_t* ids = index.const_data_ptr<int64_t>();
  std::transform(ids, ids + index.numel(), source.mutable_data_ptr<int64_t>(),
                 [&](int64_t id) { return loader.source_of(id); });
  return source;
}

/// One row of `origin`, aligned at the last axis.
at::Tensor origins_of(const Loader& loader, const Batch& batch, int64_t n) {
  const int64_t axes = loader.file_axes();
  at::Tensor origins = at::zeros({n, axes}, at::kLong);
  const int64_t* ids = batch.sample_ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0) continue;
    const std::vector<int64_t> origin = loader.window(batch.epoch, ids[i]).origin;
    int64_t* row_end = origins.mutable_data_ptr<int64_t>() + (i + 1) * axes;
    std::copy(origin.begin(), origin.end(), row_end - static_cast<int64_t>(origin.size()));
  }
  return origins;
}

}  // namespace

Dump dump(const std::vector<config::Source>& sources, const config::Model& model,
          const LoaderOptions& options, int64_t epoch, int64_t count) {
  VT_REQUIRE(ConfigError, count >= 1, "[data] --count must be at least 1 but is {}", count);
  VT_REQUIRE(ConfigError, epoch >= 0, "[data] --epoch must be at least 0 but is {}", epoch);
  Loader loader(sources, model, options, {epoch, 0});
  const int64_t share = options.global_batch / options.data_ranks;
  std::vector<at::Tensor> images, labels, indices, origins;
  for (int64_t first = 0; first < count; first += options.global_batch) {
    const int64_t mine = count - first - options.data_rank * share;
    if (mine <= 0) break;  // only the last global batch can be cut before this rank's part
    const Batch batch = loader.next();
    const int64_t n = std::min(mine, batch.size());
    images.push_back(batch.image.narrow(0, 0, n));
    labels.push_back(batch.label.narrow(0, 0, n));
    indices.push_back(batch.sample_ids.narrow(0, 0, n));
    origins.push_back(origins_of(loader, batch, n));
  }
  std::vector<int64_t> shape{0, channels_of(sources.front(), model)}, label_shape{0};
  shape.insert(shape.end(), model.image_size.begin(), model.image_size.end());
  if (segments(model))
    label_shape.insert(label_shape.end(), model.image_size.begin(), model.image_size.end());
  Dump result;
  result.image = joined(images, shape, at::kFloat);
  result.label = joined(labels, label_shape, at::kLong);
  result.index = joined(indices, {0}, at::kLong);
  result.source = sources_of(loader, result.index);
  result.origin = joined(origins, {0, loader.file_axes()}, at::kLong);
  return result;
}

void write(const Dump& dump, const std::string& path) {
  std::vector<at::Tensor> kept;  // what the file's pointers point into
  std::vector<io::TensorToWrite> tensors;
  const auto add = [&](const char* name, const at::Tensor& tensor) {
    kept.push_back(tensor.contiguous());
    tensors.push_back({name, ops::dtype_of(tensor.scalar_type()), tensor.sizes().vec(),
                       kept.back().const_data_ptr()});
  };
  add("image", dump.image);
  add("label", dump.label);
  add("index", dump.index);
  add("source", dump.source);
  add("origin", dump.origin);
  io::write_safetensors(path, tensors);
}

}  // namespace vitrail::data
