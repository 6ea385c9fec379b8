#pragma once
/// Cases of kernels/losses.h for any candidate.

#include <array>

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/losses.h"

namespace vitrail::testing {

using kernels::CrossEntropy;
using kernels::TokenError;

struct LossCandidate {
  void (*cross_entropy)(const CrossEntropy&);
  void (*token_error)(const TokenError&);
};
inline LossCandidate plain_losses() {
  return {kernels::cross_entropy_plain, kernels::token_error_plain};
}

using Ids = std::vector<int64_t>;

/// Reproducible ids in [lowest, highest).
inline Ids random_ids(int64_t count, int64_t lowest, int64_t highest, uint16_t stream) {
  Ids ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    ids[static_cast<size_t>(i)] =
        lowest +
        core::draw4({12, core::Stream::test, 0, stream}, 0, static_cast<uint32_t>(i)).x[0] %
            (highest - lowest);
  return ids;
}

struct Scored {
  Floats loss;
  Bits gradient;
};

struct CrossEntropyCase {
  int64_t rows, classes, padding = 0;  // elements between rows
  float smoothing = 0;
  bool mixed = false, weighted = false, skips = false, in_place = false, only_loss = false;

  int64_t stride() const { return classes + padding; }
  std::string name() const {
    return std::to_string(rows) + " x " + std::to_string(classes) +
           (smoothing > 0 ? " smooth" : "") + (mixed ? " mixed" : "") +
           (weighted ? " weighted" : "") + (skips ? " skips" : "") + (in_place ? " in place" : "");
  }
};

struct CrossEntropyInputs {
  Bits logits;
  Ids label, other;
  Floats share, class_weights;

  explicit CrossEntropyInputs(const CrossEntropyCase& c)
      : logits(bell_bits(c.rows * c.stride(), 61, 3.0f)),
        label(random_ids(c.rows, c.skips ? -1 : 0, c.classes, 62)) {
    if (c.mixed) {
      other = random_ids(c.rows, c.skips ? -1 : 0, c.classes, 63);
      for (const float x : bell(c.rows, 64, 0.2f, 0.5f)) share.push_back(x);
    }
    if (c.weighted)
      for (const float x : bell(c.classes, 65, 0.3f, 1.0f)) class_weights.push_back(std::fabs(x));
  }
};

constexpr float kLossScale = 0.25f;

inline Scored run(const LossCandidate& candidate, const CrossEntropyCase& c,
                  const CrossEntropyInputs& in, Memory& at) {
  uint16_t* const logits = at.put(in.logits);
  CrossEntropy task{.rows = c.rows,
                    .classes = c.classes,
                    .stride = c.stride(),
                    .logits = logits,
                    .label = at.put(in.label),
                    .other = at.put(in.other),
                    .share = at.put(in.share),
                    .class_weights = at.put(in.class_weights),
                    .smoothing = c.smoothing,
                    .scale = kLossScale,
                    .loss = at.put(Floats{NAN}),
                    .partials = at.put(Floats(static_cast<size_t>(c.rows + 1), NAN))};
  // Between rows nothing may be written.
  if (!c.only_loss) task.dlogits = c.in_place ? logits : at.put(in.logits);
  candidate.cross_entropy(task);
  return {at.get(task.loss, 1), at.get(task.dlogits, c.rows * c.stride())};
}

/// The loss relative to itself, or 2e-7 off: what the logarithm of an fp32 sum close to 1 loses.
inline void expect_loss(const Floats& expected, const Floats& actual, const std::string& what,
                        Worst& worst) {
  const double error = std::fabs(static_cast<double>(expected[0]) - actual[0]);
  const double allowed = 1e-5 * std::fabs(expected[0]) + 2e-7;
  ASSERT_LE(error, allowed) << what << ": " << expected[0] << " and " << actual[0];
  worst.sums = std::max(worst.sums, 1e-5 * error / allowed);
}

inline void check_loss(const LossCandidate& candidate, const CrossEntropyCase& c, Memory& at,
                       Worst& worst) {
  const CrossEntropyInputs in(c);
  HostMemory host;
  const Scored expected = run(plain_losses(), c, in, host), actual = run(candidate, c, in, at);
  expect_loss(expected.loss, actual.loss, c.name() + ": loss", worst);
  expect_close(expected.gradient, actual.gradient, c.name() + ": gradient", worst);
}

inline std::vector<CrossEntropyCase> cross_entropy_cases() {
  std::vector<CrossEntropyCase> cases;
  int turn = 0;
  for (const auto& [rows, classes] :
       {std::pair<int64_t, int64_t>{1, 2}, {3, 10}, {64, 1000}, {197, 37}, {2, 21841}})
    for (const float smoothing : {0.0f, 0.1f})
      for (const bool mixed : {false, true}) {
        cases.push_back({rows, classes, turn % 3 * 8, smoothing, mixed, turn % 2 == 1,
                         turn % 4 >= 2, turn % 5 < 2, turn % 7 == 6});
        ++turn;
      }
  return cases;
}

struct TokenErrorCase {
  int64_t samples, tokens, prefix, width;
  bool masked = true, normalises = false, in_place = false;

  std::string name() const {
    return std::to_string(samples) + " x " + std::to_string(prefix) + " + " +
           std::to_string(tokens) + " x " + std::to_string(width) + (masked ? " masked" : "") +
           (normalises ? " normalises" : "") + (in_place ? " in place" : "");
  }
  int64_t rows() const { return samples * (prefix + tokens); }
};

struct TokenErrorInputs {
  Bits prediction;
  Floats target, weights;

  explicit TokenErrorInputs(const TokenErrorCase& c)
      : prediction(bell_bits(c.rows() * c.width, 71)),
        target(bell(c.samples * c.tokens * c.width, 72, 0.7f, 0.5f)) {
    if (!c.masked) return;
    // Three quarters are scored; one token of a sample by more, as leaves are.
    for (const int64_t id : random_ids(c.samples * c.tokens, 0, 8, 73))
      weights.push_back(id < 2 ? 0.0f : id == 7 ? 2.5f : 1.0f);
  }
};

inline Scored run(const LossCandidate& candidate, const TokenErrorCase& c,
                  const TokenErrorInputs& in, Memory& at, int64_t partials) {
  uint16_t* const prediction = at.put(in.prediction);
  const TokenError task{
      .samples = c.samples,
      .tokens = c.tokens,
      .prefix = c.prefix,
      .width = c.width,
      .prediction = prediction,
      .target = at.put(in.target),
      .weights = at.put(in.weights),
      .normalises = c.normalises,
      .scale = kLossScale,
      .loss = at.put(Floats{NAN}),
      .dprediction =
          c.in_place ? prediction : at.put(Bits(static_cast<size_t>(c.rows() * c.width), 0x7FC0)),
      .partials = at.put(Floats(static_cast<size_t>(partials), NAN))};
  candidate.token_error(task);
  return {at.get(task.loss, 1), at.get(task.dprediction, c.rows() * c.width)};
}

inline void check_loss(const LossCandidate& candidate, const TokenErrorCase& c, Memory& at,
                       int64_t partials, Worst& worst) {
  const TokenErrorInputs in(c);
  HostMemory host;
  const Scored expected = run(plain_losses(), c, in, host, 1),
               actual = run(candidate, c, in, at, partials);
  expect_loss(expected.loss, actual.loss, c.name() + ": loss", worst);
  expect_close(expected.gradient, actual.gradient, c.name() + ": gradient", worst);
}

inline std::vector<TokenErrorCase> token_error_cases() {
  std::vector<TokenErrorCase> cases;
  int turn = 0;
  for (const int64_t width : {4, 75, 192, 588, 768})
    for (const auto& [samples, tokens, prefix] :
         {std::array<int64_t, 3>{1, 1, 0}, {3, 16, 1}, {2, 98, 5}})
      for (const bool normalises : {false, true}) {
        cases.push_back({samples, tokens, prefix, width, turn % 3 != 2, normalises, turn % 4 == 1});
        ++turn;
      }
  cases.push_back({2, 5000, 1, 8, true, true});  // more tokens than all warps take at once
  return cases;
}

}  // namespace vitrail::testing
