#include "vitrail/parallel/ulysses.h"

#include <numeric>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"

namespace vitrail::parallel {
namespace {

/// [B, N, T, E] -> [R, B, N / R, T, E], a view: what each rank gets.
at::Tensor by_rank(const at::Tensor& x, int64_t ranks) {
  return x.unflatten(1, {ranks, x.size(1) / ranks}).permute({1, 0, 2, 3, 4});
}

/// The fewest equal copies of each head that R divides. Neighbours stay neighbours, so query heads keep theirs.
at::Tensor divisible(const at::Tensor& x, int64_t ranks) {
  const int64_t copies = std::lcm(x.size(1), ranks) / x.size(1);
  return copies == 1 ? x : x.repeat_interleave(copies, 1);
}

/// [R, B, n, T, E] -> [B, n, R T, E]
at::Tensor joined(const at::Tensor& x) { return x.permute({1, 2, 0, 3, 4}).flatten(2, 3); }

}  // namespace

Heads gather_tokens(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    comm::Communicator& group) {
  const int64_t ranks = group.size();
  if (ranks == 1) return {q, k, v};
  VT_CHECK(q.size(1) % ranks == 0, "[ulysses] {} ranks must divide the {} heads", ranks, q.size(1));
  // One collective for all three.
  const std::vector<at::Tensor> parts{by_rank(q, ranks), by_rank(divisible(k, ranks), ranks),
                                      by_rank(divisible(v, ranks), ranks)};
  const at::Tensor received = all_to_all(at::cat(parts, 2), group);
  const std::vector<at::Tensor> heads =
      received.split_with_sizes({parts[0].size(2), parts[1].size(2), parts[2].size(2)}, 2);
  return {joined(heads[0]), joined(heads[1]), joined(heads[2])};
}

at::Tensor gather_heads(const at::Tensor& x, comm::Communicator& group) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  const at::Tensor by_run = x.unflatten(2, {ranks, x.size(2) / ranks}).permute({2, 0, 1, 3, 4});
  const at::Tensor received = all_to_all(by_run, group);  // [R, B, n, T, E]
  // Tokens before heads in memory: attention reads the result so.
  return received.permute({1, 3, 0, 2, 4}).flatten(2, 3).transpose(1, 2);
}

}  // namespace vitrail::parallel
