#pragma once
/// What the transformer models share: patch embedding, fixed position tables, trunks from a recipe.
///
/// Shapes   B batch, L tokens, D width, S values per patch.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// The convolution of stride P of a ViT, kept conv-shaped as timm does: `weight` [D, C, P, P(, P)], `bias` [D].
class Projection : public nn::Module {
 public:
  Projection(const config::Model& options);
  /// patches [B, L, S] in the weight's order -> [B, L, D]
  at::Tensor forward(const at::Tensor& patches_BLS) const;
  at::ScalarType dtype() const { return weight_.scalar_type(); }

 private:
  at::Tensor weight_, bias_;
};

/// timm's name for the patch embedding: the one child is "proj".
class PatchEmbed : public nn::Module {
 public:
  explicit PatchEmbed(const config::Model& options);
  /// Image [B, C, ...] -> patches [B, L, S] in the parameters' type. throws Error naming both shapes when the image is
  /// not of the model's channels and size.
  at::Tensor patches(const at::Tensor& image) const;
  /// patches [B, L, S] -> [B, L, D]
  at::Tensor project(const at::Tensor& patches_BLS) const { return proj_->forward(patches_BLS); }

 private:
  std::vector<int64_t> image_shape_;  // [C, ...]
  int64_t patch_size_;
  std::shared_ptr<Projection> proj_;
};

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
  /// Runs a trunk, keeping the wanted blocks "NAME.i".
  at::Tensor run(const std::string& name, nn::Stack& trunk, const at::Tensor& x_BLD,
                 const nn::Draws& draws);

 private:
  std::vector<std::string> wanted_;
  std::map<std::string, at::Tensor>& found_;
};

}  // namespace vitrail::models
