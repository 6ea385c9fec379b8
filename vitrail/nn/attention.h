#pragma once
/// Multi-head self-attention with timm's names: qkv, q_norm, k_norm, proj.
///
///   q, k, v = qkv(x);  q, k = turn(q_norm(q)), turn(k_norm(k));  proj(dropout(softmax(q k^T / sqrt(E))) v)
/// Paper    Vaswani et al. 2017, arXiv:1706.03762; q/k normalisation: Dehghani et al. 2023, arXiv:2302.05442; grouped
///          queries: Ainslie et al. 2023, arXiv:2305.13245.
/// Shapes   B batch, L tokens, D width, N heads, Nkv heads of k and v, E = D / N.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/context.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"

namespace vitrail::nn {

struct AttentionOptions {
  int64_t width = 768;
  int64_t num_heads = 12;
  int64_t num_kv_heads = 0;  // each serves num_heads / num_kv_heads query heads; 0 = num_heads
  bool qkv_bias = true;
  bool proj_bias = true;
  bool qk_norm = false;
  NormOptions norm;
  double attn_drop = 0.0;
  double proj_drop = 0.0;
  uint16_t draw_layer = 0;  // uses draw_layer (probabilities) and draw_layer + 1 (output)
};

/// The core of ops/attention.h for q [B, N, L, E], k and v [B, Nkv, L, E] and the key mask [B, L] (undefined = none):
/// ops::sdpa or ops::plain_attention, or what sequence parallelism puts in their place.
using Attend = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const at::Tensor& key_mask_BL)>;

/// Zeroes attention probabilities [B, n, l, m] (and scales the rest) that begin at `first` = head, query, key of those
/// [B, heads here, all tokens, all tokens]. Linear, so gradients go through it as values do.
using DropProbabilities = std::function<at::Tensor(const at::Tensor& probabilities_BNLL,
                                                   const std::array<int64_t, 3>& first)>;

/// What attention needs besides q, k and v where tokens are divided over ranks.
struct Attending {
  at::Tensor key_mask_BL;  // of all tokens of the sample; undefined = none
  int64_t tokens = 0;      // of the sample
  Attend core;             // for heads with all their tokens
  DropProbabilities drop;  // empty: nothing is dropped; else the written-out formula must run
};

/// q [B, N, T, E], k and v [B, Nkv, T, E] of this rank's run of T tokens -> its part of the result [B, N, T, E].
using DividedAttend = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v, const Attending& how)>;

class Attention : public Module {
 public:
  explicit Attention(const AttentionOptions& options);
  /// x_BLD -> [B, L, D]. While attention dropout is active the written-out formula runs instead of the core.
  /// Rows of tokens that the key mask takes out are finite and mean nothing.
  at::Tensor forward(const at::Tensor& x_BLD, const Context& context) const;
  void set_attend(Attend attend) { attend_ = std::move(attend); }
  /// Stands around the core from now on; empty: tokens are whole.
  void set_divided_attend(DividedAttend attend) { divided_ = std::move(attend); }
  /// Runs the qkv layer from now on; empty: plainly. The tokens that come out may be more than went in.
  void set_enter(SharedInput enter) { enter_ = std::move(enter); }
  /// What lies between q, k, v of the heads that are here (normed and turned) and their results, laid out as Attend
  /// says: the core, attention dropout, exchanges of divided tokens.
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const Context& context) const;
  bool has_enter() const { return static_cast<bool>(enter_); }
  /// Whether attend() is ops::sdpa and nothing else (but for attention dropout).
  bool is_library_core() const;
  /// num_kv_heads is never 0.
  const AttentionOptions& options() const { return options_; }
  Linear& qkv() { return *qkv_; }
  Linear& proj() { return *proj_; }
  const Norm* q_norm() const { return q_norm_.get(); }  // null: none
  const Norm* k_norm() const { return k_norm_.get(); }

 private:

  AttentionOptions options_;
  Attend attend_;
  DividedAttend divided_;
  SharedInput enter_;
  std::shared_ptr<Linear> qkv_, proj_;  // qkv weight [(N + 2 Nkv) E, D]: q of all heads, k, v
  std::shared_ptr<Norm> q_norm_, k_norm_;
};

}  // namespace vitrail::nn
