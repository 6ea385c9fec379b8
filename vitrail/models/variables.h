#pragma once
/// One patch embedding per variable, an embedding that tells variables apart, and the aggregation of the tokens of one
/// place to one. A batch may hold any of the variables, in any order.
///
/// Paper    Nguyen et al. 2023, arXiv:2301.10343 (ClimaX); aggregation inside groups first: D-CHAG.
/// Shapes   B batch, K patches, V variables of the batch, M = B * K, Q queries, D width, N heads, E head width.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

/// Several tokens a place become one; tokens may be missing.
class Aggregator : public nn::Module {
 public:
  /// x_MVD: the tokens `ids` (ascending or not) out of those that this aggregator knows -> [M, D]
  virtual at::Tensor forward(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const = 0;
};

/// Mean over the present tokens, each times its learned weight.
/// Names    weight [known], 1 at the start.
class LinearAggregator : public Aggregator {
 public:
  explicit LinearAggregator(int64_t known);
  at::Tensor forward(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const override;

 private:
  at::Tensor weight_;
  IndexTensors indices_;
};

/// Learned queries attend to the present tokens: proj(softmax(q k^T / sqrt(E)) v), q = W_q query, [k; v] = W_kv x, no
/// biases but proj's. Results of several queries are joined and go through `merge`.
/// Names    q.weight, kv.weight [2D, D], q_norm, k_norm (qk_norm), proj, merge [D, Q * D] (several queries).
class CrossAggregator : public Aggregator {
 public:
  /// `query` [1, Q, D] belongs to the owner.
  CrossAggregator(const config::Model& options, at::Tensor query);
  at::Tensor forward(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const override;

 private:
  at::Tensor query_;
  int64_t num_heads_;
  std::shared_ptr<nn::Linear> q_, kv_, proj_, merge_;
  std::shared_ptr<nn::Norm> q_norm_, k_norm_;
};

/// Names    var_embed [1, V, D]; token_embeds.I.*; var_groups.G.* (weight, or query, q, kv, proj); var_query [1, Q, D];
///          var_agg.*.
class VariableTokenizer : public Tokenizer {
 public:
  /// throws ConfigError when the variables cannot be cut into the groups.
  explicit VariableTokenizer(const config::Model& options);
  /// single_channel: one variable a batch, its tokens plus its embedding are the result. Leaves per channel: nothing is
  /// aggregated, the tokens of all variables follow each other, [B, V * fixed_length, D].
  at::Tensor forward(const data::Batch& batch, const at::Tensor& keep_BK) const override;
  int64_t num_patches() const override;
  at::ScalarType dtype() const override { return layers_[0]->dtype(); }
  std::vector<std::string> prefixes() const override;

 private:
  bool adaptive() const { return options_.num_leaves() > 0; }
  void add_aggregation();
  /// The batch's patches one variable at a time, [B, V, K, P^k].
  at::Tensor patches(const data::Batch& batch, int64_t variables, const at::Tensor& keep_BK) const;
  /// [V, M, D] with the variables' embeddings added.
  at::Tensor embed(const at::Tensor& patches_VMS, const std::vector<int64_t>& ids) const;
  at::Tensor embed_separately(const at::Tensor& patches_VMS, const at::Tensor& offsets_V1D,
                              const std::vector<int64_t>& ids) const;
  /// [B, V * L or K, D]
  at::Tensor embed_apart(const at::Tensor& patches_BVLS, const std::vector<int64_t>& ids,
                         const at::Tensor& keep_BK) const;
  at::Tensor aggregate(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const;

  config::Model options_;
  at::Tensor var_embed_, var_query_;
  std::vector<std::shared_ptr<PatchLayer>> layers_;  // one, or one a variable
  std::vector<std::shared_ptr<Aggregator>> groups_;  // none, one (shared), or one a group
  std::shared_ptr<Aggregator> final_;                // null when there is nothing to aggregate
  IndexTensors indices_;
};

}  // namespace vitrail::models
