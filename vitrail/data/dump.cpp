#include "vitrail/data/dump.h"

#include <algorithm>
#include <array>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/data/augment_batch.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::data {
namespace {

/// The first n rows of every batch, joined; undefined parts stay undefined.
class Rows {
 public:
  void add(const Batch& batch, int64_t n) {
    const std::array<const at::Tensor*, kParts> tensors{
        &batch.image,       &batch.label,       &batch.sample_ids, &batch.boxes,
        &batch.box_classes, &batch.label_other, &batch.label_share};
    VT_REQUIRE(ConfigError, parts_[0].empty() || parts_[0].front().size(1) == batch.image.size(1),
               "[data] batches of {} and of {} channels cannot be written to one file; dump their "
               "sources one by one",
               parts_[0].front().size(1), batch.image.size(1));
    for (size_t i = 0; i < kParts; ++i)
      if (tensors[i]->defined()) parts_[i].push_back(tensors[i]->narrow(0, 0, n));
  }
  bool empty() const { return parts_[0].empty(); }
  at::Tensor joined(size_t part) const {
    return parts_[part].empty() ? at::Tensor() : at::cat(parts_[part]);
  }

 private:
  static constexpr size_t kParts = 7;
  std::array<std::vector<at::Tensor>, kParts> parts_;
};

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
    const std::vector<int64_t> origin = loader.window(loader.draw_epoch(batch, i), ids[i]).origin;
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
  Rows rows;
  std::vector<at::Tensor> origins;
  for (int64_t first = 0; first < count; first += options.global_batch) {
    const int64_t mine = count - first - options.data_rank * share;
    // Only the last global batch can be cut before this rank's part; what it holds is looked at all
    // the same, so that shapes and types of an empty part are right.
    if (mine <= 0 && !rows.empty()) break;
    const Batch batch = loader.next();
    const int64_t n = std::clamp<int64_t>(mine, 0, batch.size());
    origins.push_back(origins_of(loader, batch, n));
    rows.add(augmented(batch, model.image_size), n);
    if (mine <= 0) break;
  }
  Dump result;
  result.image = rows.joined(0);
  result.label = rows.joined(1);
  result.index = rows.joined(2);
  result.boxes = rows.joined(3);
  result.box_classes = rows.joined(4);
  result.label_other = rows.joined(5);
  result.label_share = rows.joined(6);
  result.source = sources_of(loader, result.index);
  result.origin = at::cat(origins);
  return result;
}

void write(const Dump& dump, const std::string& path) {
  std::vector<at::Tensor> kept;  // what the file's pointers point into
  std::vector<io::TensorToWrite> tensors;
  const auto add = [&](const char* name, const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    kept.push_back(tensor.contiguous());
    tensors.push_back({name, ops::dtype_of(tensor.scalar_type()), tensor.sizes().vec(),
                       kept.back().const_data_ptr()});
  };
  add("image", dump.image);
  add("label", dump.label);
  add("index", dump.index);
  add("source", dump.source);
  add("origin", dump.origin);
  add("boxes", dump.boxes);
  add("box_classes", dump.box_classes);
  add("label_other", dump.label_other);
  add("label_share", dump.label_share);
  io::write_safetensors(path, tensors);
}

}  // namespace vitrail::data
