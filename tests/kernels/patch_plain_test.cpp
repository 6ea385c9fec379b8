// The plain loops of patch.h against gathers of ATen and their gradients.

#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/tensor.h>

#include "tests/kernels/patch_cases.h"
#include "tests/kernels/reference.h"

namespace vitrail::testing {
namespace {

at::Tensor gather(const at::Tensor& x, const std::vector<int64_t>& ids, int64_t count) {
  const at::Tensor index = at::tensor(ids, at::kLong).view({x.size(0), count, 1});
  return at::gather(x, 1, index.expand({-1, -1, x.size(2)}));
}

Floats gained(Floats sums, uint16_t stream) {
  const Floats start = bell(static_cast<int64_t>(sums.size()), stream);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] -= start[i];
  return sums;
}

/// He et al.'s: kept tokens and mask tokens in shuffled order, gathered by `restore`.
TEST(PlainPatch, KeepsAndRestoresTokensWithTheirGradients) {
  const PatchCase c{.shape = {3, 16, 5, 2, 24}};
  const auto& [B, L, K, P, D] = c.shape;
  const PatchInputs in(c);
  HostMemory host;
  const PatchResult plain = run(plain_patch(), c, in, host);

  const at::Tensor all = wide(in.all, {B, P + L, D}), kept = leaf(in.kept, {B, P + K, D});
  const at::Tensor token = leaf(in.token, {1, 1, D}), positions = leaf(in.positions, {1, L, D}),
                   prefix_positions = leaf(in.prefix_positions, {1, P, D});
  expect_like(at::cat({all.slice(1, 0, P), gather(all.slice(1, P), in.keep, K)}, 1), plain.kept, 0,
              0, "kept (moved)");

  const at::Tensor shuffled = at::cat({kept.slice(1, P), token.expand({B, L - K, -1})}, 1);
  const at::Tensor restored = at::cat(
      {kept.slice(1, 0, P) + prefix_positions, gather(shuffled, in.restore, L) + positions}, 1);
  expect_like(restored, plain.all, kRounding, 0, "restored");
  // `all` stands for the gradient here, as run() has it.
  (restored * all).sum().backward();
  expect_like(kept.grad(), plain.kept, 0, 0, "gradient of kept (moved)");
  expect_like(token.grad(), gained(plain.dmask_token, 86), 0, 2e-7, "dmask_token (fp32)");
  expect_like(positions.grad(), gained(plain.dpositions, 87), 0, 2e-7, "dpositions (fp32)");
  expect_like(prefix_positions.grad(), gained(plain.dprefix_positions, 88), 0, 2e-7,
              "dprefix_positions (fp32)");

  // The gradient of keep_tokens is restore_tokens without token and positions.
  const at::Tensor source = leaf(in.all, {B, P + L, D});
  const at::Tensor chosen =
      at::cat({source.slice(1, 0, P), gather(source.slice(1, P), in.keep, K)}, 1);
  (chosen * wide(in.kept, {B, P + K, D})).sum().backward();
  expect_like(source.grad(), plain.spread, 0, 0, "gradient of keep_tokens (moved)");
}

}  // namespace
}  // namespace vitrail::testing
