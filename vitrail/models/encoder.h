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
#include "vitrail/models/chain.h"
#include "vitrail/models/decatt.h"
#include "vitrail/models/leaves.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"
#include "vitrail/nn/stack.h"
#include "vitrail/ops/masking.h"

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
/// Whether real tokens come first in that mask where no patch is dropped: padding ends each tree, so of one tree.
bool key_mask_is_prefix(const config::Model& options);

class Encoder : public nn::Module {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Encoder(const config::Model& options);

  /// Tokens with their positions. keep_BK (int64) embeds only those patches, in that order; without it all run, less
  /// what patch dropout leaves out in training.
  /// throws Error naming both shapes when the input is not the model's; DataError for unknown variables.
  Tokens embed(const data::Batch& batch, const nn::Draws& draws, const at::Tensor& keep_BK = {});
  /// The two halves of it: tokens with their positions, and what their blocks run in. keep_BK as given, undefined = all.
  at::Tensor tokens(const data::Batch& batch, const nn::Draws& draws, const at::Tensor& keep_BK);
  nn::Context context(const data::Batch& batch, const nn::Draws& draws, const at::Tensor& keep_BK,
                      at::Device device);
  /// Patches that patch dropout leaves, by ascending noise; undefined when all stay. Padding leaves go first.
  at::Tensor draw_kept(const data::Batch& batch, const nn::Draws& draws) const;

  /// The blocks, then normalised() -> [B, T, D]. Offers the taps "embed", "blocks.i", "norm".
  at::Tensor run(const Tokens& tokens, Taps& tap);
  /// The final norm when this encoder has one; offers "norm".
  at::Tensor normalised(const at::Tensor& x_BTD, Taps& tap) const;

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
  config::Model options_;
  int64_t prefix_;
  at::Tensor cls_token_, reg_token_;  // [1, 1, D], [1, R, D]
  Positions positions_;
  RotaryTable rotary_;
  std::shared_ptr<Tokenizer> tokenizer_;
  std::shared_ptr<nn::Stack> blocks_;
  std::shared_ptr<nn::Norm> norm_;
};

/// What follows from a batch and its draws alone.
struct Known {
  data::Batch batch;  // with leaves; diffusion: the image noisy, with its level and noise
  nn::Draws draws;
  ops::Masking masking;  // keep_BK: the patches that run, undefined = all; the rest mae only
};

/// A model made of an encoder and what `Encoder` leaves to it: head or decoder. One pass, whole or cut in pieces, is
/// begin, the encoder's blocks, with a second trunk between and its blocks, then conclude.
class EncoderModel : public Model, public Chain {
 public:
  explicit EncoderModel(const config::Model& options);
  Encoder& encoder() { return *encoder_; }
  Output forward(const data::Batch& batch, const nn::Draws& draws,
                 const std::vector<std::string>& taps = {}) override;

  Chain* chain() override { return this; }
  std::vector<nn::Stack*> trunks() override { return stacks(); }
  nn::Context context(int t, const Flow& flow, const data::Batch& batch,
                      const nn::Draws& draws) override;
  void run_end(int t, Flow& flow, const data::Batch& batch, const nn::Draws& draws, Output& out,
               const std::vector<std::string>& wanted) override;
  std::string tap_of_block(int trunk, int block) const override;
  void check_taps(const std::vector<std::string>& wanted) const override;
  int end_of(const std::string& unit) const override;

  /// Makes the leaves that the batch lacks; every forward of a derived model begins with with_leaves likewise.
  at::Tensor features(const data::Batch& batch, const nn::Draws& draws) override;
  /// The encoder's units, then one unit "head" of everything else.
  std::vector<UnitSpec> units() override;
  std::vector<nn::Stack*> stacks() override;
  double train_flops_per_sample() const override;
  data::Batch prepared(data::Batch batch, const nn::Draws& draws) const override {
    return with_leaves(batch, draws);
  }
  /// All but diffusion, without drop rates, variables and class weights.
  bool repeats() const override;
  int64_t tokens_per_sample() const override;
  std::vector<nn::NamedTensor> fixed_tensors() const override { return encoder_->fixed_tensors(); }
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

  /// Adds weight * decatt of the encoder's blocks to the loss of training passes (draws.training); forward only, a
  /// pipeline's pieces do not. throws ConfigError for a block that the encoder lacks.
  void set_decatt(const config::Decatt& options);
  /// The unweighted term of the last training pass, a scalar on the device; undefined: none so far.
  const at::Tensor& last_decatt() const { return last_decatt_; }

 protected:
  /// Who asks what is known: all that is needed to begin, between or to conclude, or a trunk's context.
  enum class Asks { whole, begin, between, conclude, context };
  virtual Known know(const data::Batch& batch, const nn::Draws& draws, Asks who) const;
  /// End 0: the tokens of the first trunk.
  virtual void begin(Flow& flow, const Known& known, Taps& tap);
  /// Out of the first trunk, into the second.
  virtual void between(Flow& flow, const Known& known, Taps& tap);
  /// Out of the last trunk: output, and loss when there are labels.
  virtual void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) = 0;
  /// In what trunk t runs.
  virtual nn::Context trunk_context(int t, const Flow& flow, const Known& known);
  /// Taps besides those of blocks.
  virtual std::vector<std::string> end_taps() const = 0;
  /// A second trunk; between() makes its tokens.
  void add_trunk(const std::string& name, nn::Stack* trunk) { trunks_.push_back({name, trunk}); }
  /// One whole pass.
  Output run_all(const Known& known, const std::vector<std::string>& taps);

  data::Batch with_leaves(const data::Batch& batch, const nn::Draws& draws) const {
    return leaf_maker_.with_leaves(batch, draws);
  }

  config::Model options_;
  LeafMaker leaf_maker_;
  std::shared_ptr<Encoder> encoder_;

 private:
  struct Trunk {
    std::string name;  // of its blocks' taps and units
    nn::Stack* blocks = nullptr;
  };
  void run_end(int t, Flow& flow, const Known& known, Taps& tap, Output& out);
  Taps make_taps(const std::vector<std::string>& wanted,
                 std::map<std::string, at::Tensor>& found) const;

  std::vector<Trunk> trunks_;
  Decatt decatt_;
  at::Tensor last_decatt_;
};

}  // namespace vitrail::models
