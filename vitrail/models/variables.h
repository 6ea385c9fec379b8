#pragma once
/// One patch embedding per variable, an embedding that tells variables apart, and the aggregation of the tokens of one
/// place to one. A batch may hold any of the variables, in any order.
///
/// Paper    Nguyen et al. 2023, arXiv:2301.10343 (ClimaX); aggregation inside groups first: D-CHAG.
/// Shapes   B batch, K patches, V variables of the batch, M = B * K, Q queries, D width, N heads, E head width.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/models/parts.h"
#include "vitrail/models/tokenizer.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

class CrossAggregator;

/// Several tokens a place become one; tokens may be missing.
class Aggregator : public nn::Module {
 public:
  /// The attention inside, if that is how this one works.
  virtual CrossAggregator* cross() { return nullptr; }
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
  CrossAggregator* cross() override { return this; }
  int64_t num_heads() const { return num_heads_; }
  /// Heads are divided over ranks: q and kv run by `enter`, proj by `leave`; `part`: this rank's.
  void divide(nn::SharedInput enter, nn::Product leave, nn::Part part);
  at::Tensor forward(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const override;

 private:
  at::Tensor query_;
  int64_t num_heads_;
  nn::SharedInput enter_;
  std::shared_ptr<nn::Linear> q_, kv_, proj_, merge_;
  std::shared_ptr<nn::Norm> q_norm_, k_norm_;
};

/// Ranks that share the variables: each embeds and aggregates those of an equal run of groups.
/// Paper    D-CHAG: arXiv:2506.21411.
struct ChannelShare {
  int64_t index = 0, of = 1;
  /// [G / of, M, D] of every rank -> [G, M, D], rank by rank.
  std::function<at::Tensor(const at::Tensor&)> gather;
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

  /// throws ConfigError when there are no groups or the ranks do not divide them.
  void set_share(ChannelShare share);
  /// The attention of the groups and of the aggregation over them, as far as there is some.
  std::vector<CrossAggregator*> cross_of_groups() const;
  CrossAggregator* cross_of_all() const { return final_ ? final_->cross() : nullptr; }

 private:
  bool adaptive() const { return options_.num_leaves() > 0; }
  void add_aggregation();
  /// The batch's patches one variable at a time, [B, V, K, P^k]: of all its `variables`, or of those at `places`.
  at::Tensor patches(const data::Batch& batch, int64_t variables, const at::Tensor& keep_BK,
                     const std::optional<std::vector<int64_t>>& places = {}) const;
  /// [V, M, D] with the variables' embeddings added.
  at::Tensor embed(const at::Tensor& patches_VMS, const std::vector<int64_t>& ids) const;
  at::Tensor embed_separately(const at::Tensor& patches_VMS, const at::Tensor& offsets_V1D,
                              const std::vector<int64_t>& ids) const;
  /// [B, V * L or K, D]
  at::Tensor embed_apart(const at::Tensor& patches_BVLS, const std::vector<int64_t>& ids,
                         const at::Tensor& keep_BK) const;
  at::Tensor aggregate(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const;
  int64_t variables_of_group() const {
    return known_channels(options_) / options_.aggregation.groups;
  }
  /// The token of group g, [M, D]; undefined when x_MVD has none of its variables.
  at::Tensor group_token(int64_t g, const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const;
  /// This rank's groups' tokens, then everyone's -> [M, D].
  at::Tensor forward_shared(const data::Batch& batch, const std::vector<int64_t>& ids,
                            const at::Tensor& keep_BK) const;

  config::Model options_;
  at::Tensor var_embed_, var_query_;
  std::vector<std::shared_ptr<PatchLayer>> layers_;  // one, or one a variable
  std::vector<std::shared_ptr<Aggregator>> groups_;  // none, one (shared), or one a group
  std::shared_ptr<Aggregator> final_;                // null when there is nothing to aggregate
  ChannelShare share_;
  IndexTensors indices_;
};

}  // namespace vitrail::models
