#pragma once
/// Boxes from a plain vision transformer: its patch tokens go to a DETR-style head.
///
/// Paper    Li et al. 2022, arXiv:2203.16527 (plain backbones); head: detection_head.h; loss: detection_losses.h.
/// Differs  one scale and global attention in every block, no windows; no class token.
/// Shapes   B batch, L patches, D width, Q queries, C classes.
/// Names    timm's of the encoder; head.*: detection_head.h.
/// Taps     embed, blocks.i, norm [B, L, D]; dense_boxes [B, L, 4], dense_logits [B, L, K] with queries: grid and decoder
///          blocks.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/detection_head.h"
#include "vitrail/models/encoder.h"

namespace vitrail::models {

/// output: logits [B, Q, C + 1] (focal: [B, Q, C]); boxes [B, Q, 4]; loss when the batch has boxes.
class VitDetection : public EncoderModel {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit VitDetection(const config::Model& options);
  Task task() const override { return Task::detection; }
  double train_flops_per_sample() const override;
  /// Boxes are matched on the host.
  bool repeats() const override { return false; }

 private:
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  std::vector<std::string> end_taps() const override;

  at::Tensor places_;  // of the patches
  std::shared_ptr<DetectionHead> head_;
};

/// timm_initial and with_detection_head.
InitialRule vit_detection_initial(const config::Model& options);

}  // namespace vitrail::models
