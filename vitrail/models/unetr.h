#pragma once
/// UNETR: a vision transformer whose inner blocks feed a convolutional decoder; a class for every pixel or voxel.
///
/// Paper    Hatamizadeh et al. 2021, arXiv:2103.10504; reference code MONAI's UNETR.
/// Differs  any patch size: where 16 times the grid is not the image, the second finest map (8 times the grid) is resized
///          to the image's sides, corners in place, and the last merge keeps the sides. Any depth from 4 on: the decoder
///          reads the blocks d, 2d and 3d (from 0) with d = depth / 4, and the final norm's output. Without skips the
///          decoder is four doublings and the output layer; the linear decoder classifies tokens and resizes the
///          result. A variable that a batch lacks is an image channel of zeros.
/// Leaves   adaptive or of mixed resolution, are put back into their places on the grid before the decoder (leaf_grid.h):
///          a leaf over several cells is copied to each, leaves finer than a cell (min_leaf below patch_size) are averaged
///          in it by their areas. Skips read the image too, which must then come beside the leaves; the loss is that of
///          the image's pixels.
/// Tiles    the convolutional decoder, from the tokens on their grid to the loss, runs on tiles (segmenter.h); the linear
///          one has no maps but its logits and stays whole.
/// Shapes   B batch, C channels, L tokens on a grid g, D width, F feature_size.
/// Names    MONAI's: encoder1.layer.*, encoder2|3|4.transp_conv_init.conv.weight, encoder2|3.blocks.I.0.conv.weight,
///          encoder2|3.blocks.I.1.conv1|2.conv.weight, decoder5|4|3|2.transp_conv.conv.weight,
///          decoder5|4|3|2.conv_block.conv1|2|3.conv.weight, out.conv.conv.weight, out.conv.conv.bias. Without skips:
///          decoder5|4|3|2.transp_conv.conv.weight and out.conv.conv.*; linear: head.weight [classes, D], head.bias.
/// Taps     embed, blocks.i, norm [B, L, D]; with skips enc1 [B, F, sides], enc2 [B, 2F, 8g], enc3 [B, 4F, 4g],
///          enc4 [B, 8F, 2g]; conv: dec5 [B, 8F, 2g], dec4 [B, 4F, 4g], dec3 [B, 2F, 8g], dec2 [B, F, sides] (without
///          skips [B, F, 16g]).

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/segmenter.h"
#include "vitrail/nn/conv_blocks.h"
#include "vitrail/nn/linear.h"

namespace vitrail::models {

/// output: logits [B, classes, sides...]; loss when there are labels [B, sides...].
class Unetr : public Segmenter {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Unetr(const config::Model& options);

  /// The trunk, and 6 per multiply-add of the decoder's convolutions.
  double train_flops_per_sample() const override;

  /// With skips the blocks d, 2d and 3d.
  std::vector<int> taps(int t) const override;
  /// That of the tokens; empty with the linear decoder.
  std::vector<int64_t> tile_grid() const override {
    return linear() ? std::vector<int64_t>() : grid_;
  }

 private:
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  std::vector<std::string> end_taps() const override;
  bool linear() const { return options_.decoder == "linear"; }
  /// 16 times the grid is the image.
  bool doubles_to_image() const { return options_.patch_size == 16; }
  int64_t places(int64_t scale) const;  // of the grid, each side `scale` times
  void add_skips();
  void add_doublings();

  /// The image (its tile) with every channel that the model knows, in type `dtype`.
  at::Tensor image_of(const data::Batch& batch, at::ScalarType dtype) const;
  /// Tokens in their places; `shares` of leaf_shares for adaptive ones.
  at::Tensor map(const at::Tensor& x_BLD, const at::Tensor& shares_BGL) const;
  at::Tensor to_image(const at::Tensor& x) const;
  at::Tensor own_tile(const at::Tensor& whole) const;
  /// A map, or its tile, as a tap.
  void offer(Taps& tap, const std::string& name, const at::Tensor& x) const;
  /// latent and inner [B, D, g...].
  at::Tensor decode(const at::Tensor& image, const at::Tensor& latent,
                    const std::vector<at::Tensor>& inner, Taps& tap) const;
  at::Tensor decode(const at::Tensor& latent, Taps& tap) const;

  std::vector<int64_t> grid_;
  IndexTensors indices_;
  std::shared_ptr<nn::ResidualBlock> encoder1_;
  std::shared_ptr<nn::RaiseBlock> encoder2_, encoder3_, encoder4_;
  std::shared_ptr<nn::MergeBlock> decoder5_, decoder4_, decoder3_, decoder2_;
  std::vector<std::shared_ptr<nn::UpConv>> doublings_;  // without skips: decoder5 ... decoder2
  std::shared_ptr<nn::Conv> out_;
  std::shared_ptr<nn::Linear> head_;  // linear decoder
};

/// segmenter_initial.
InitialRule unetr_initial(const config::Model& options);

}  // namespace vitrail::models
