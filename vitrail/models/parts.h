#pragma once
/// What the transformer models share: fixed tables, trunks from a recipe, heads that predict pixels, taps.
///
/// Shapes   B batch, L patches, T tokens, D width, C channels, P patch edge, k axes.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// A tensor that is saved with the weights but never trained; kept in fp32, used in the type and place of the
/// activations.
class FixedTable {
 public:
  FixedTable() = default;
  explicit FixedTable(at::Tensor values) : values_(std::move(values)) {}
  bool defined() const { return values_.defined(); }
  at::Tensor values() const { return values_; }
  /// The values like `other`; converted once.
  at::Tensor like(const at::Tensor& other);
  void set(const at::Tensor& values);

 private:
  at::Tensor values_, converted_;
};

/// Sin-cos positions [1, prefix + L, D] of a recipe's patch grid, zero for the prefix tokens.
at::Tensor position_table(const config::Model& options, int64_t prefix, int64_t width);

/// Writes starting values into a parameter; nothing when it has only a shape (nn::ShapesOnly).
void start_at(at::Tensor parameter, const at::Tensor& values);

/// Rotary angles of a recipe's patch grid for one trunk; built at the first use, kept on the device of the last use.
class RotaryTable {
 public:
  RotaryTable() = default;  // no rotary positions
  /// throws ConfigError when the head width does not fit model.rope.
  RotaryTable(const config::Model& options, int64_t prefix, int64_t head_width, double theta);
  /// Of the prefix and of the patches keep_BK (all patches when undefined); undefined without rotary positions.
  ops::Rotary on(at::Device device, const at::Tensor& keep_BK = {});

 private:
  std::string kind_ = "none";
  std::vector<int64_t> grid_;
  int64_t prefix_ = 0, head_width_ = 0;
  double theta_ = 0.0;
  ops::Rotary values_;
};

/// Small host lists of indices as device tensors, each copied once.
class IndexTensors {
 public:
  at::Tensor on(at::Device device, const std::vector<int64_t>& values) const;

 private:
  mutable std::map<std::string, at::Tensor> known_;
};

/// Channels that the models of a recipe know: its variables, or in_channels when it names none.
int64_t known_channels(const config::Model& options);
/// Pixels of one channel of a patch: P^k.
int64_t patch_pixels(const config::Model& options);

/// The linear layer that predicts the pixels of a patch in the order (p, q[, r], c), channel fastest. With variables it
/// has rows for every one the model knows, and a batch of some of them uses theirs only.
/// Names    weight [P^k * C, D], bias [P^k * C].
class PatchHead : public nn::Module {
 public:
  PatchHead(const config::Model& options, int64_t width, bool bias);
  /// x [..., D] -> [..., P^k * channels]: `channels` as Encoder::channels_of gives them.
  at::Tensor forward(const at::Tensor& x, const std::vector<int64_t>& channels) const;
  /// One channel of each patch, that of its own tree: x [B, channels * L, D], channel after channel
  /// -> [B, channels * L, P^k].
  at::Tensor forward_apart(const at::Tensor& x, const std::vector<int64_t>& channels) const;

 private:
  at::Tensor rows(const at::Tensor& parameter, const at::Tensor& channels) const;

  int64_t pixels_, channels_;
  std::shared_ptr<nn::Linear> all_;
  IndexTensors indices_;
};

struct TrunkSizes {
  int64_t width, depth, num_heads, mlp_hidden;
  int first_index = 0;  // of the first block among all blocks of the model
};
std::shared_ptr<nn::Stack> make_trunk(const config::Model& options, const TrunkSizes& sizes);
/// Sizes of the (first) trunk.
TrunkSizes trunk_sizes(const config::Model& options);
nn::NormOptions norm_options(const config::Model& options);

/// The draw layers of dropouts outside blocks.
enum class EndDraw : uint16_t { pos_drop = 0xFFFF, head_drop = 0xFFFE };
at::Tensor end_dropout(const at::Tensor& x, double rate, const nn::Draws& draws, EndDraw place);

/// 6 N T + 12 T^2 d L of one trunk: N parameters, T tokens, d width, L layers.
double trunk_flops(const nn::Stack& trunk, int64_t tokens, int64_t width);

/// Parameters whose name starts with `prefix` (or equals it), full names kept.
std::vector<nn::NamedTensor> select(const std::vector<nn::NamedTensor>& all,
                                    const std::vector<std::string>& prefixes);
/// Parameters of `all` that are in none of the units.
std::vector<nn::NamedTensor> remaining(const std::vector<nn::NamedTensor>& all,
                                       const std::vector<UnitSpec>& units);
/// One unit per block of a trunk whose parameters are called "NAME.i.*".
void add_trunk_units(std::vector<UnitSpec>& units, const std::vector<nn::NamedTensor>& all,
                     const std::string& name, nn::Stack* trunk);

/// Collects requested intermediate results.
class Taps {
 public:
  /// `ends`: taps a model has besides the blocks of `trunks`.
  /// throws ConfigError naming the taps that exist when one is unknown.
  Taps(const std::vector<std::string>& wanted, const std::vector<std::string>& ends,
       const std::vector<std::pair<std::string, int>>& trunks,
       std::map<std::string, at::Tensor>& found);
  void offer(const std::string& name, const at::Tensor& value);
  bool wants(const std::string& name) const;
  /// Runs a trunk, keeping the wanted blocks "NAME.i"; what `also` asks for goes to also_outputs in order.
  at::Tensor run(const std::string& name, nn::Stack& trunk, const at::Tensor& x_BLD,
                 const nn::Context& context, const std::vector<nn::Tap>& also = {},
                 std::vector<at::Tensor>* also_outputs = nullptr);

 private:
  std::vector<std::string> wanted_;
  std::map<std::string, at::Tensor>& found_;
};

}  // namespace vitrail::models
