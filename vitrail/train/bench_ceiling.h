#pragma once
/// Time of the kernels that a step cannot do without: the matrix products and attention of every
/// block at their real shapes, and the optimizer's bytes at copy bandwidth.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/model.h"

namespace vitrail::train {

/// What one trunk computes in a step.
struct TrunkShape {
  int64_t batch = 0, tokens = 0, width = 0;  // of what its blocks get
  int64_t num_heads = 0, mlp_hidden = 0, depth = 0;
  bool swiglu = false;
};

/// Wraps the engines of a model's trunks while it lives and records the shapes their blocks get.
class ShapeRecorder {
 public:
  /// `make_engine` builds the engine that really runs.
  ShapeRecorder(models::Model& model,
                const std::function<std::unique_ptr<nn::BlockEngine>()>& make_engine);
  std::vector<TrunkShape> shapes() const;

 private:
  std::vector<nn::Stack*> stacks_;
  std::vector<std::shared_ptr<std::vector<int64_t>>> inputs_;
};

/// Milliseconds of one step's kernels, each trunk measured for `seconds` without pause.
double kernel_ceiling_ms(const std::vector<TrunkShape>& trunks, int64_t micro_batches,
                         at::Device device, at::ScalarType dtype, double optimizer_bytes,
                         double seconds);

}  // namespace vitrail::train
