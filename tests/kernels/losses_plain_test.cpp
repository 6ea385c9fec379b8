// The plain loops of losses.h against ATen in fp64.

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "tests/kernels/losses_cases.h"
#include "tests/kernels/reference.h"

namespace vitrail::testing {
namespace {

at::Tensor labels(const Ids& ids) { return at::tensor(ids, at::kLong); }

/// torch's cross-entropy as sums: with weights its mean divides by the weights of the labels.
struct Ratio {
  at::Tensor sum, total;
};
Ratio cross_entropy(const at::Tensor& logits, const at::Tensor& label, const at::Tensor& share,
                    const at::Tensor& weights, double smoothing) {
  const at::Tensor rows =
      at::cross_entropy_loss(logits, label, weights, 0 /* no reduction */, -1, smoothing);
  const at::Tensor counts = label.ge(0).to(at::kDouble);
  const at::Tensor weight = weights.index_select(0, label.clamp_min(0)) * counts;
  return {(rows * share).sum(), (weight * share).sum()};
}

void check(const CrossEntropyCase& c) {
  const CrossEntropyInputs in(c);
  HostMemory host;
  const at::Tensor logits = leaf(in.logits, {c.rows, c.classes});
  const at::Tensor weights = in.class_weights.empty()
                                 ? wide(Floats(static_cast<size_t>(c.classes), 1.0f), {c.classes})
                                 : wide(in.class_weights, {c.classes});
  const at::Tensor one = wide(Floats(static_cast<size_t>(c.rows), 1.0f), {c.rows});
  const at::Tensor share = c.mixed ? wide(in.share, {c.rows}) : one;
  const auto smoothing = static_cast<double>(c.smoothing);
  Ratio ratio = cross_entropy(logits, labels(in.label), share, weights, smoothing);
  if (c.mixed) {
    const Ratio other = cross_entropy(logits, labels(in.other), one - share, weights, smoothing);
    ratio = {ratio.sum + other.sum, ratio.total + other.total};
  }
  const at::Tensor loss = ratio.sum / ratio.total;
  (loss * static_cast<double>(kLossScale)).backward();
  const Scored scored = run(plain_losses(), c, in, host);
  expect_like(loss.view({1}), scored.loss, 1e-7, 0, c.name() + ": loss (fp32)");
  expect_like(logits.grad(), scored.gradient, kRounding, 1e-7, c.name() + ": gradient");
}

TEST(PlainLosses, CrossEntropyIsTorchs) {
  check({.rows = 12, .classes = 7});
  check({.rows = 12, .classes = 7, .smoothing = 0.1f, .weighted = true, .skips = true});
}
TEST(PlainLosses, CrossEntropyOfMixedLabelsIsTheSharedMean) {
  check({.rows = 12, .classes = 7, .smoothing = 0.1f, .mixed = true});
  check({.rows = 12, .classes = 7, .mixed = true, .weighted = true, .skips = true});
}

void check(const TokenErrorCase& c) {
  const TokenErrorInputs in(c);
  HostMemory host;
  const int64_t B = c.samples, L = c.tokens, S = c.width;
  const at::Tensor all = leaf(in.prediction, {B, c.prefix + L, S});
  at::Tensor target = wide(in.target, {B, L, S});
  if (c.normalises)
    target = (target - target.mean(-1, /*keepdim=*/true)) /
             (target.var(at::OptionalIntArrayRef(-1), 1, /*keepdim=*/true) + 1e-6).sqrt();
  const at::Tensor error = (all.slice(1, c.prefix) - target).square().mean(-1);
  const at::Tensor weights = c.masked ? wide(in.weights, {B, L}) : at::Tensor();
  const at::Tensor loss =
      weights.defined() ? (error * weights).sum() / weights.sum() : error.mean();
  (loss * static_cast<double>(kLossScale)).backward();
  const Scored scored = run(plain_losses(), c, in, host, 1);
  expect_like(loss.view({1}), scored.loss, 1e-7, 0, c.name() + ": loss (fp32)");
  expect_like(all.grad(), scored.gradient, kRounding, 1e-7, c.name() + ": gradient");
}

TEST(PlainLosses, TokenErrorIsTheMaskedMean) { check(TokenErrorCase{3, 8, 1, 12}); }
TEST(PlainLosses, TokenErrorNormalisesTargetsAsHeEtAl) {
  check(TokenErrorCase{3, 8, 0, 12, true, true});
  check(TokenErrorCase{2, 8, 2, 12, false, true});
}

}  // namespace
}  // namespace vitrail::testing
