#pragma once
/// Attention over divided tokens against the formula over whole ones: values and gradients.

#include <algorithm>
#include <functional>
#include <mutex>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/core/philox.h"
#include "vitrail/nn/attention.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/random.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/token_border.h"

namespace vitrail::testing {

struct AttentionCase {
  int ranks = 2;
  int64_t tokens = 16, heads = 4, kv_heads = 4;
  bool masked = false;
  double drop = 0.0;
  at::ScalarType type = at::kDouble;
  int64_t batch = 2, width = 8;
};

inline at::Tensor numbers(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor x = at::empty(shape, at::kDouble);
  for (int64_t e = 0; e < x.numel(); ++e)
    x.data_ptr<double>()[e] =
        4.0 * core::uniform({.seed = seed}, 0, static_cast<uint32_t>(e)) - 2.0;
  return x;
}

/// The whole problem: q, k, v, the gradient of the result, and the mask.
struct WholeAttention {
  explicit WholeAttention(const AttentionCase& c) : case_(c) {
    q = numbers({c.batch, c.heads, c.tokens, c.width}, 1).to(c.type);
    k = numbers({c.batch, c.kv_heads, c.tokens, c.width}, 2).to(c.type);
    v = numbers({c.batch, c.kv_heads, c.tokens, c.width}, 3).to(c.type);
    dy = numbers({c.batch, c.heads, c.tokens, c.width}, 4).to(c.type);
    how.tokens = c.tokens;
    how.core = [](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                  const at::Tensor& mask) {
      return ops::plain_attention(queries, keys, values, mask);
    };
    if (c.masked) {  // from one token to all: blocks without any real token are among them
      const at::Tensor real_B =
          at::arange(c.batch).mul(c.tokens - 1).div(std::max<int64_t>(c.batch - 1, 1), "floor") + 1;
      how.key_mask_BL = at::arange(c.tokens).unsqueeze(0).lt(real_B.unsqueeze(1));
    }
    if (c.drop > 0)
      how.drop = [c, ids = at::arange(c.batch, at::kLong)](const at::Tensor& probabilities,
                                                           const std::array<int64_t, 3>& first) {
        return ops::dropout(
            probabilities, c.drop, {.seed = 5}, ids,
            ops::Window{{first[0], first[1], first[2]}, {c.heads, c.tokens, c.tokens}});
      };
  }

  /// The formula's result and gradients: y, dq, dk, dv.
  std::vector<at::Tensor> reference() const {
    const at::Tensor leaf_q = leaf(q), leaf_k = leaf(k), leaf_v = leaf(v);
    std::function<at::Tensor(const at::Tensor&)> drop;
    if (how.drop) drop = [this](const at::Tensor& p) { return how.drop(p, {0, 0, 0}); };
    const at::Tensor y = ops::plain_attention(leaf_q, leaf_k, leaf_v, how.key_mask_BL, drop);
    y.backward(dy);
    return {y.detach(), leaf_q.grad(), leaf_k.grad(), leaf_v.grad()};
  }

  static at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().set_requires_grad(true); }

  AttentionCase case_;
  at::Tensor q, k, v, dy;
  nn::Attending how;
};

using DividedCore =
    std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const nn::Attending& how, comm::Communicator& group)>;

/// The largest difference of `core` on the case's ranks (threads) from the formula, over the largest value or 1: of y, dq,
/// dk, dv.
inline std::vector<double> largest_differences(const AttentionCase& c, const DividedCore& core) {
  const WholeAttention whole(c);
  const std::vector<at::Tensor> expected = whole.reference();
  std::vector<double> worst(4, 0.0);
  std::mutex mutex;
  const int64_t run = parallel::run_length(c.tokens, c.ranks);
  comm::run_thread_group(c.ranks, [&](comm::Communicator& group) {
    at::set_num_threads(1);
    const auto own = [&](const at::Tensor& x) {
      return parallel::padded_narrow(x, 2, group.rank() * run, run).contiguous();
    };
    const at::Tensor q = WholeAttention::leaf(own(whole.q)), k = WholeAttention::leaf(own(whole.k)),
                     v = WholeAttention::leaf(own(whole.v));
    const at::Tensor y = core(q, k, v, whole.how, group);
    y.backward(own(whole.dy));
    const std::vector<at::Tensor> results{y.detach(), q.grad(), k.grad(), v.grad()};
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < results.size(); ++i) {
      const double largest = expected[i].abs().max().item().toDouble();
      worst[i] = std::max(worst[i], (results[i] - own(expected[i])).abs().max().item().toDouble() /
                                        std::max(1.0, largest));
    }
  });
  return worst;
}

}  // namespace vitrail::testing
