#pragma once
/// The vision transformer below every head and decoder: images, volumes, variables or adaptive leaves become tokens,
/// tokens get positions, blocks run over them.
///
/// It is registered in its model under the empty name, so that its parameters keep timm's names: cls_token, reg_token,
/// pos_embed, patch_embed.*, blocks.*, norm.*; leaf_position.* with adaptive patching; variables.h for the rest.
/// Paper    Dosovitskiy et al. 2021, arXiv:2010.11929; registers: Darcet et al. 2023, arXiv:2309.16588; patch dropout:
///          Li et al. 2022, arXiv:2212.00794.
/// Shapes   B batch, L patches (or leaves), T = class + registers + the patches that run, K of them kept, D width.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/leaves.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// What the trunk reads.
struct Tokens {
  at::Tensor x_BTD;
  nn::Context context;  // draws, rotary positions and key mask of these tokens
};

/// Class and register tokens.
int64_t prefix_tokens(const config::Model& options);

/// Additive positions of tokens: a learned table, a sin-cos table, the MLP of adaptive leaves, or none. The owner
/// registers what is learned.
///
/// Leaves   learned: one row for each place in the list of leaves (per_channel: for each place of each variable);
///          sin-cos: of the leaf's centre, in units of patch_size (leaf_positions.h).
class Positions {
 public:
  /// throws ConfigError when the kind of positions does not fit the patches.
  Positions(const config::Model& options, int64_t width);
  /// [1, prefix + L, width], empty without a learned table.
  const std::vector<int64_t>& learned_shape() const { return learned_shape_; }
  /// The parameter that the owner made, started at sin-cos values where the model asks for it.
  void set_learned(at::Tensor parameter);
  std::shared_ptr<LeafPosition> of_leaves() const { return of_leaves_; }
  FixedTable& fixed() const { return fixed_; }

  /// [1 or B, L or K, width], undefined without positions. Padding leaves have one too; nothing attends to them.
  at::Tensor of_patches(const data::Batch& batch, const at::Tensor& keep_BK,
                        const at::Tensor& like) const;
  /// [1, prefix, width], undefined without a table: then prefix tokens have no position.
  at::Tensor of_prefix(const at::Tensor& like) const;

 private:
  at::Tensor table_like(const at::Tensor& x) const;
  at::Tensor table_of_patches(const data::Batch& batch, const at::Tensor& like) const;

  config::Model options_;
  int64_t prefix_, width_;
  std::vector<int64_t> learned_shape_;
  at::Tensor learned_, start_;
  mutable FixedTable fixed_;  // its copy on the device is a cache
  std::shared_ptr<LeafPosition> of_leaves_;
  bool sincos_of_leaves_ = false;
  IndexTensors indices_;
};

/// bool [B, prefix + L or K]: false for padding leaves; undefined without adaptive patching.
at::Tensor key_mask(const config::Model& options, const data::Batch& batch,
                    const at::Tensor& keep_BK = {});

class Encoder : public nn::Module {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Encoder(const config::Model& options);

  /// Tokens with their positions. keep_BK (int64) embeds only those patches, in that order; without it all run, less
  /// what patch dropout leaves out in training.
  /// throws Error naming both shapes when the input is not the model's; DataError for unknown variables.
  Tokens embed(const data::Batch& batch, const nn::Draws& draws, const at::Tensor& keep_BK = {});

  /// The blocks, then the final norm when this encoder has one -> [B, T, D]. Offers the taps "embed", "blocks.i",
  /// "norm". The outputs of the blocks `inner` (not normalised) go to inner_outputs in order.
  at::Tensor run(const Tokens& tokens, Taps& tap, const std::vector<int>& inner = {},
                 std::vector<at::Tensor>* inner_outputs = nullptr);

  int64_t prefix_tokens() const { return prefix_; }
  /// L: patches of the grid, or leaves (per_channel: of all variables).
  int64_t num_patches() const { return tokenizer_->num_patches(); }
  /// L of one batch: fewer where its variables are some of those with leaves of their own.
  int64_t num_patches(const data::Batch& batch) const;
  nn::Stack& blocks() { return *blocks_; }
  Tokenizer& tokenizer() { return *tokenizer_; }
  /// Input channels of one batch: all of the model, or those of batch.variables, as indices into what the model knows.
  std::vector<int64_t> channels_of(const data::Batch& batch) const;

  std::vector<nn::NamedTensor> fixed_tensors() const;
  /// False when there is no such tensor.
  bool set_fixed_tensor(const std::string& name, const at::Tensor& values);
  /// Units "embed" and "blocks.i" out of all parameters of the model.
  std::vector<UnitSpec> units(const std::vector<nn::NamedTensor>& all);

 private:
  at::Tensor draw_kept(const data::Batch& batch, const nn::Draws& draws) const;

  config::Model options_;
  int64_t prefix_;
  at::Tensor cls_token_, reg_token_;  // [1, 1, D], [1, R, D]
  Positions positions_;
  RotaryTable rotary_;
  std::shared_ptr<Tokenizer> tokenizer_;
  std::shared_ptr<nn::Stack> blocks_;
  std::shared_ptr<nn::Norm> norm_;
};

/// A model made of an encoder and what `Encoder` leaves to it: head or decoder.
class EncoderModel : public Model {
 public:
  explicit EncoderModel(const config::Model& options);
  /// Makes the leaves that the batch lacks; every forward of a derived model begins with with_leaves likewise.
  at::Tensor features(const data::Batch& batch, const nn::Draws& draws) override;
  /// The encoder's units, then one unit "head" of everything else.
  std::vector<UnitSpec> units() override;
  std::vector<nn::Stack*> stacks() override { return {&encoder_->blocks()}; }
  double train_flops_per_sample() const override;
  data::Batch prepared(data::Batch batch, const nn::Draws& draws) const override {
    return with_leaves(batch, draws);
  }
  /// All but diffusion, without drop rates, variables and class weights.
  bool repeats() const override;
  int64_t tokens_per_sample() const override;
  std::vector<nn::NamedTensor> fixed_tensors() const override { return encoder_->fixed_tensors(); }
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

 protected:
  data::Batch with_leaves(const data::Batch& batch, const nn::Draws& draws) const {
    return leaf_maker_.with_leaves(batch, draws);
  }

  config::Model options_;
  LeafMaker leaf_maker_;
  std::shared_ptr<Encoder> encoder_;
};

}  // namespace vitrail::models
