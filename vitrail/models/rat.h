#pragma once
/// Resolution-aware transformer (RAT), in 2-D and 3-D: an image at several scales, a token for every pixel, blocks that
/// gather the cells of each scale into groups and let all scales attend to each other; heads for segmentation,
/// classification and detection read the groups of the finest scale.
///
/// Differs  from the first program: heads are transposed (model.rat.heads viewed: as there), the temperature begins at 1
///          / sqrt(head width) (temperature width), spacing follows from the scales (spacing unit), axes differ in their
///          frequencies (axis_frequencies equal), learned spacings begin as themselves (spacing_scaling log, rope), k and
///          v are made once for all iterations, maps are made on request only, sparse grouping works at any stride,
///          absolute positions are a sin-cos table, and a final norm stands before the head (final_norm false: none).
/// Masks    true = valid, one for each scale (run()); a token is valid when all pixels under its convolution are. How
///          blocks read it: nn/grouping.h. Recipes have none.
/// Shapes   B batch, C channels, k axes, N_s cells of scale s, D width, N heads.
/// Names    proj.{weight,bias}; blocks.i.* (nn/grouping_block.h); norm; head.{fc1,fc2,fc3} (segmentation), head
///          (classification: one linear layer; detection: detection_head.h).
/// Taps     embed [B, sum of N_s, D], blocks.i, norm [B, tokens, D] (norm: of the finest scale); maps.s, assignments.s [B,
///          N, groups of the last block, N_s]: the shares, and assignments before they are shared out, of all blocks
///          composed, for scale s; small images only.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/init.h"
#include "vitrail/models/model.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/rat_scales.h"
#include "vitrail/nn/conv.h"
#include "vitrail/nn/grouping_block.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

class DetectionHead;
class TokenMlp;

/// One scale of a batch.
struct ScaleInput {
  at::Tensor image;  // [B, C, sides of the scale]
  at::Tensor valid;  // bool [B, sides of the scale]; undefined = all pixels are
};

/// output: segmentation logits [B, classes, sides...] (with the losses bce and bce_dice the head gives one number a
/// pixel, the logit of class 1 against 0, whose own logit is then 0); classification [B, classes]; detection as
/// VitDetection.
class Rat : public Model {
 public:
  /// throws ConfigError when the options contradict each other, naming the block that would be left without a group.
  explicit Rat(const config::Model& options);
  ~Rat() override;

  Task task() const override;
  Output forward(const data::Batch& batch, const nn::Draws& draws,
                 const std::vector<std::string>& taps = {}) override;
  /// The same for scales that the caller made; `batch` gives labels or boxes, or nothing.
  Output run(const std::vector<ScaleInput>& scales, const data::Batch& batch,
             const nn::Draws& draws, const std::vector<std::string>& taps = {});
  /// Mean of the final tokens of the finest scale.
  at::Tensor features(const data::Batch& batch, const nn::Draws& draws) override;
  /// "embed", "blocks.i", "head".
  std::vector<UnitSpec> units() override;
  std::vector<nn::Stack*> stacks() override { return {blocks_.get()}; }
  double train_flops_per_sample() const override;
  /// Cells of all scales.
  int64_t tokens_per_sample() const override;
  bool repeats() const override;

  const std::vector<nn::CellGrid>& grids() const { return grids_; }

 private:
  nn::GroupingBlock& block(int i) const;
  const nn::CellGrid& final_grid() const;
  std::vector<ScaleInput> scales_of(const at::Tensor& image) const;
  at::Tensor embedded(const std::vector<ScaleInput>& scales) const;
  at::Tensor valid_tokens(const std::vector<ScaleInput>& scales) const;
  at::Tensor run_blocks(const at::Tensor& x_BLD, const nn::Context& context, Taps& tap) const;
  void offer_maps(const std::vector<nn::ScaleMaps>& maps, Taps& tap) const;
  void segment(const at::Tensor& x_BLD, const data::Batch& batch, Output& out) const;
  void classify(const at::Tensor& x_BLD, const data::Batch& batch, const nn::Draws& draws,
                Output& out) const;
  void detect(const at::Tensor& x_BLD, const data::Batch& batch, Output& out);

  config::Model options_;
  std::vector<nn::CellGrid> grids_;
  Resizer resize_;
  std::vector<FixedTable> positions_;  // position absolute
  std::shared_ptr<nn::Conv> proj_;
  std::shared_ptr<nn::Stack> blocks_;
  std::shared_ptr<nn::Norm> norm_;
  std::shared_ptr<TokenMlp> segmentation_;
  std::shared_ptr<nn::Linear> classes_;
  std::shared_ptr<DetectionHead> detection_;
  at::Tensor places_;  // of the final tokens, detection
};

/// Linear layers truncated normal (0.02, cut at two deviations) with zero biases, unit norms, convolutions and their
/// biases as PyTorch's; jitter of the frequencies normal(model.rat.jitter).
InitialRule rat_initial(const config::Model& options);

}  // namespace vitrail::models
