#pragma once
/// What UNETR and SAP share: an encoder without prefix tokens, a decoder of one unit, a class, or real values, for every place.
///
/// Shapes   B batch, L patches or leaves, D width, k axes.

#include <cstdint>
#include <vector>

#include "vitrail/models/encoder.h"
#include "vitrail/models/init.h"
#include "vitrail/nn/tiles.h"

namespace vitrail::models {

class Segmenter : public EncoderModel {
 public:
  /// throws ConfigError for prefix tokens, fewer than two classes (one value), or a loss of another kind of model.
  explicit Segmenter(const config::Model& options);
  Task task() const override {
    return options_.loss == "mse" ? Task::regression : Task::segmentation;
  }
  /// The encoder's units, then "decoder".
  std::vector<UnitSpec> units() override;

  /// The grid of which all maps behind the encoder are multiples; empty when they cannot be divided into tiles.
  virtual std::vector<int64_t> tile_grid() const { return {}; }
  /// From now on the maps behind the encoder are this rank's tiles of them; null: whole. Not for an empty tile_grid().
  /// Outlives the model or is taken back. The loss stays that of whole samples. Output::output is the tile's where
  /// gradients are kept, else whole; taps are whole.
  void set_tiles(nn::Tiles* tiles) { tiles_ = tiles; }

 protected:
  int64_t axes() const { return static_cast<int64_t>(options_.image_size.size()); }
  bool adaptive() const { return options_.num_leaves() > 0; }
  /// Logits or values in fp32 (fp64 stays) and their loss when there are labels. `label` of whole samples, `logits` of
  /// this rank's tiles when there are tiles.
  void finish(Output& out, const at::Tensor& logits, const at::Tensor& label) const;
  /// Forward and backward of the decoder: six operations per multiply-add, in addition to the encoder's.
  double with_decoder(double multiply_adds) const {
    return EncoderModel::train_flops_per_sample() + 6.0 * multiply_adds;
  }

  nn::Tiles* tiles_ = nullptr;
};

/// x_BLD -> [B, D, grid...], rows in raster order.
at::Tensor as_map(const at::Tensor& x_BLD, at::IntArrayRef grid);

/// timm_initial for the encoder and linear layers, PyTorch's for convolutions: uniform in +-1/sqrt(size(1) * K^k), of a
/// bias as of its weight. Learned positions keep the sin-cos table they were built with; for adaptive patches they
/// are normal(0.02).
InitialRule segmenter_initial(const config::Model& options);

}  // namespace vitrail::models
