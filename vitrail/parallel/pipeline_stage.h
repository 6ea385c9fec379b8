#pragma once
/// What one rank computes of a chain between two cuts.

#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/chain.h"

namespace vitrail::parallel {

/// What a forward leaves for its backward.
struct StagePass {
  std::vector<at::Tensor> inputs;   // leaves; x, condition, inner ...
  std::vector<at::Tensor> outputs;  // in the same order; none of the last stage
  models::Output out;               // of the last stage, but for taps
};

/// Flows travel as lists: x, condition (undefined = none), then the taps.
std::vector<at::Tensor> tensors_of(const models::Flow& flow);
models::Flow flow_of(const std::vector<at::Tensor>& tensors);

class Stage {
 public:
  /// `pieces` empty: the whole model.
  Stage(models::Model& model, std::vector<models::ChainPiece> pieces, bool is_last)
      : model_(model), pieces_(std::move(pieces)), is_last_(is_last) {}

  /// `inputs`: those of stage 0 are empty. out.taps gets those of `taps` that this stage makes.
  StagePass forward(std::vector<at::Tensor> inputs, const data::Batch& batch,
                    const nn::Draws& draws, const std::vector<std::string>& taps = {});
  /// gradients: of the outputs; of the last stage: of nothing but `root`. Returns those of the inputs, zeros where
  /// none arrived, and gives up what the pass holds.
  std::vector<at::Tensor> backward(StagePass& pass, const std::vector<at::Tensor>& gradients,
                                   const at::Tensor& root);
  bool is_last() const { return is_last_; }

 private:
  models::Model& model_;
  std::vector<models::ChainPiece> pieces_;
  bool is_last_;
};

}  // namespace vitrail::parallel
