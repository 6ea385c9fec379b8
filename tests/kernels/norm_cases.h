#pragma once
/// Cases of kernels/residual_norm.h for any candidate.

#include "tests/kernels/candidate.h"
#include "vitrail/kernels/residual_norm.h"

namespace vitrail::testing {

using kernels::ResidualNorm;
using kernels::ResidualNormBackward;
using kernels::RowShape;

struct NormCandidate {
  void (*forward)(const ResidualNorm&);
  void (*backward)(const ResidualNormBackward&);
  int64_t (*partials)(const RowShape&);  // null: needs none
};
inline NormCandidate plain_norm() {
  return {kernels::residual_norm_plain, kernels::residual_norm_backward_plain, nullptr};
}

/// What is there in a case.
struct NormCase {
  RowShape shape;
  bool is_rms = false, has_weight = true;
  bool adds = true, gamma = false, keep = false;
  bool in_place = false;  // sum in x; dx in dsum
  bool past = true;       // backward: a gradient past the norm
  bool sums = true;       // backward: parameters and branch sums are wanted

  std::string name() const {
    return std::to_string(shape.samples) + " x " + std::to_string(shape.tokens) + " x " +
           std::to_string(shape.width) + (is_rms ? " rms" : " layer") + (adds ? " adds" : "") +
           (gamma ? " gamma" : "") + (keep ? " keep" : "") + (in_place ? " in place" : "") +
           (past ? " past" : "") + (sums ? " sums" : "") + (has_weight ? "" : " no weight");
  }
};

struct NormInputs {
  Bits x, branch, gamma, weight, bias, dy, dsum;
  Floats keep, mean, rstd;

  explicit NormInputs(const NormCase& c) {
    const int64_t rows = c.shape.rows(), width = c.shape.width, count = rows * width;
    // A shifted stream, as residual streams are.
    x = bell_bits(count, 1, 1.5f, 0.75f);
    if (c.adds) branch = bell_bits(count, 2);
    if (c.gamma) gamma = bell_bits(width, 3, 0.25f, 0.5f);
    if (c.has_weight) weight = bell_bits(width, 4, 0.3f, 1.0f);
    if (c.has_weight && !c.is_rms) bias = bell_bits(width, 5, 0.5f);
    dy = bell_bits(count, 6);
    if (c.past) dsum = bell_bits(count, 7);
    if (c.keep) {
      keep.assign(static_cast<size_t>(c.shape.samples), 1.0f / 0.9f);
      for (size_t i = 0; i < keep.size(); i += 3) keep[i] = 0.0f;
    }
    mean = c.is_rms ? Floats() : Floats(static_cast<size_t>(rows));
    rstd.resize(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      if (!c.is_rms) mean[r] = 0.75f + 0.01f * static_cast<float>(r % 7);
      rstd[r] = 0.6f + 0.01f * static_cast<float>(r % 5);
    }
  }
};

inline kernels::NormParameters parameters_of(const NormCase& c, const NormInputs& in, Memory& at) {
  return {at.put(in.weight), at.put(in.bias), 1e-6f, c.is_rms};
}

struct NormForward {
  Bits sum, y;
  Floats mean, rstd;
};

inline NormForward run_forward(const NormCandidate& candidate, const NormCase& c,
                               const NormInputs& in, Memory& at, bool wants_y = true) {
  const int64_t count = c.shape.rows() * c.shape.width, rows = c.shape.rows();
  ResidualNorm task{.shape = c.shape, .norm = parameters_of(c, in, at)};
  uint16_t* const x = at.put(in.x);
  task.x = x;
  task.branch = {at.put(in.branch), at.put(in.gamma), at.put(in.keep)};
  if (c.adds) task.sum = c.in_place ? x : at.put(Bits(static_cast<size_t>(count), 0x7FC0));
  if (wants_y) {
    task.y = at.put(Bits(static_cast<size_t>(count), 0x7FC0));
    if (!c.is_rms) task.mean = at.put(Floats(static_cast<size_t>(rows), NAN));
    task.rstd = at.put(Floats(static_cast<size_t>(rows), NAN));
  }
  candidate.forward(task);
  return {at.get(task.sum, count), at.get(task.y, count), at.get(task.mean, rows),
          at.get(task.rstd, rows)};
}

struct NormBackward {
  Bits dx, dbranch;
  Floats dweight, dbias, dgamma, branch_sums;
};

/// `dx_in` given: nothing was normed, and this is the gradient of the sum.
inline NormBackward run_backward(const NormCandidate& candidate, const NormCase& c,
                                 const NormInputs& in, Memory& at, const Bits* dx_in = nullptr) {
  const int64_t width = c.shape.width, count = c.shape.rows() * width;
  const Floats start = bell(width, 20);  // gradients are added to what is there
  ResidualNormBackward task{.shape = c.shape, .norm = parameters_of(c, in, at)};
  const bool scaled = c.adds && (c.gamma || c.keep);
  if (!dx_in) {
    task.dy = at.put(in.dy);
    task.sum = at.put(in.x);
    task.mean = at.put(in.mean);
    task.rstd = at.put(in.rstd);
  }
  uint16_t* const dsum = at.put(dx_in ? *dx_in : in.dsum);
  task.dsum = dsum;
  task.dx = c.in_place && dsum ? dsum : at.put(Bits(static_cast<size_t>(count), 0x7FC0));
  if (c.adds) task.branch = {nullptr, at.put(in.gamma), at.put(in.keep)};
  if (scaled) task.dbranch = at.put(Bits(static_cast<size_t>(count), 0x7FC0));
  if (c.sums) {
    if (!dx_in && c.has_weight) task.dweight = at.put(start);
    if (!dx_in && c.has_weight && !c.is_rms) task.dbias = at.put(start);
    if (c.adds) task.branch_sums = at.put(start);
    if (c.adds && c.gamma) {
      task.branch.values = at.put(in.branch);
      task.dgamma = at.put(start);
    }
  }
  if (candidate.partials)
    task.partials = at.put(Floats(static_cast<size_t>(candidate.partials(c.shape)), NAN));
  candidate.backward(task);
  return {at.get(task.dx, count),    at.get(task.dbranch, count), at.get(task.dweight, width),
          at.get(task.dbias, width), at.get(task.dgamma, width),  at.get(task.branch_sums, width)};
}

/// The candidate against the plain loop. What is made of a rounded result is compared with the plain loop on the
/// candidate's own: one rounding that falls the other way is no error of what follows.
inline void check_norm(const NormCandidate& candidate, const NormCase& c, Memory& at,
                       Worst& worst) {
  const NormInputs in(c);
  HostMemory host;
  const NormForward plain = run_forward(plain_norm(), c, in, host),
                    forward = run_forward(candidate, c, in, at);
  expect_close(plain.sum, forward.sum, c.name() + ": sum", worst);
  NormCase only_norm = c;
  only_norm.adds = false;
  NormInputs of_sum = in;
  of_sum.branch.clear();
  if (c.adds) of_sum.x = forward.sum;
  const NormForward normed = run_forward(plain_norm(), only_norm, of_sum, host);
  expect_close(normed.y, forward.y, c.name() + ": y", worst);
  expect_close(normed.mean, forward.mean, c.name() + ": mean", worst);
  expect_close(normed.rstd, forward.rstd, c.name() + ": rstd", worst);
  if (c.adds)
    expect_close(forward.sum, run_forward(candidate, c, in, at, /*wants_y=*/false).sum,
                 c.name() + ": sum alone", worst);

  const NormBackward expected = run_backward(plain_norm(), c, in, host),
                     actual = run_backward(candidate, c, in, at);
  expect_close(expected.dx, actual.dx, c.name() + ": dx", worst);
  expect_close(expected.dweight, actual.dweight, c.name() + ": dweight", worst);
  expect_close(expected.dbias, actual.dbias, c.name() + ": dbias", worst);
  const NormBackward branch = run_backward(plain_norm(), c, in, host, &actual.dx),
                     alone = run_backward(candidate, c, in, at, &actual.dx);
  for (const NormBackward* result : {&actual, &alone}) {
    expect_close(branch.dx, result->dx, c.name() + ": dx of the branch", worst);
    expect_close(branch.dbranch, result->dbranch, c.name() + ": dbranch", worst);
    expect_close(branch.dgamma, result->dgamma, c.name() + ": dgamma", worst);
    expect_close(branch.branch_sums, result->branch_sums, c.name() + ": branch sums", worst);
  }
}

/// Every width, every option; wide rows with few rows.
inline std::vector<NormCase> norm_cases() {
  std::vector<NormCase> cases;
  int turn = 0;
  for (const int64_t width : {8, 24, 64, 192, 264, 768, 1024, 1280, 2816, 4096, 4104, 16384})
    for (const auto& [samples, tokens] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 1}, {1, 197}, {4, 5}}) {
      if (width > 1280 && tokens == 197) continue;
      for (const bool is_rms : {false, true})
        for (const bool scaled : {false, true}) {
          NormCase c{.shape = {samples, tokens, width}, .is_rms = is_rms};
          c.gamma = scaled && turn % 3 != 0;
          c.keep = scaled && turn % 3 != 1;
          c.adds = scaled || turn % 2 == 0;
          c.in_place = turn % 5 < 2;
          c.past = turn % 4 != 3;
          c.sums = turn % 7 != 6;
          c.has_weight = turn % 11 != 10;
          cases.push_back(c);
          ++turn;
        }
    }
  return cases;
}

/// More rows than all teams take at once, in forward and backward, for each way of sharing a row.
inline std::vector<NormCase> long_norm_cases() {
  std::vector<NormCase> cases;
  const std::pair<int64_t, int64_t> sizes[] = {{24, 17000}, {264, 17500}, {1032, 900},
                                               {2056, 300}, {3080, 300},  {4104, 450}};
  int turn = 0;
  for (const auto& [width, rows] : sizes) {
    NormCase c{.shape = {2, rows / 2, width}, .is_rms = turn % 2 == 1};
    c.gamma = c.keep = turn % 3 == 0;
    cases.push_back(c);
    ++turn;
  }
  return cases;
}

}  // namespace vitrail::testing
