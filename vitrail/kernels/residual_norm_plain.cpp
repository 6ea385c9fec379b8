#include <cmath>
#include <vector>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/quantize.h"
#include "vitrail/kernels/residual_norm.h"

namespace vitrail::kernels {
namespace {

float parameter(const uint16_t* values, int64_t i, float otherwise) {
  return values ? from_bf16(values[i]) : otherwise;
}

float keep_of(const Branch& branch, const RowShape& shape, int64_t row) {
  return branch.keep ? branch.keep[row / shape.tokens] : 1.0f;
}

/// keep * gamma of one value.
float scale_of(const Branch& branch, float keep, int64_t column) {
  return keep * parameter(branch.gamma, column, 1.0f);
}

/// Mean (0 for RMSNorm) and 1 / deviation of a row.
struct Statistics {
  float mean = 0, rstd = 0;
};

Statistics statistics_of(const uint16_t* row, int64_t width, const NormParameters& norm) {
  Statistics statistics;
  double sum = 0, squares = 0;
  for (int64_t c = 0; c < width; ++c) sum += from_bf16(row[c]);
  if (!norm.is_rms) statistics.mean = static_cast<float>(sum / static_cast<double>(width));
  for (int64_t c = 0; c < width; ++c)
    squares += std::pow(static_cast<double>(from_bf16(row[c])) - statistics.mean, 2);
  statistics.rstd =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(width) + norm.eps));
  return statistics;
}

}  // namespace

void residual_norm_plain(const ResidualNorm& task) {
  const int64_t width = task.shape.width;
  check_width("residual_norm", width, kMostNormWidth);
  std::vector<uint16_t> row_of_y(static_cast<size_t>(width));
  for (int64_t row = 0; row < task.shape.rows(); ++row) {
    const int64_t at = row * width;
    const uint16_t* normed = task.x + at;
    if (task.branch.values) {
      const float keep = keep_of(task.branch, task.shape, row);
      for (int64_t c = 0; c < width; ++c)
        task.sum[at + c] =
            to_bf16(from_bf16(task.x[at + c]) +
                    scale_of(task.branch, keep, c) * from_bf16(task.branch.values[at + c]));
      normed = task.sum + at;
    }
    if (!task.y && !task.codes.values) continue;
    uint16_t* const y = task.y ? task.y + at : row_of_y.data();
    const Statistics statistics = statistics_of(normed, width, task.norm);
    for (int64_t c = 0; c < width; ++c)
      y[c] = to_bf16((from_bf16(normed[c]) - statistics.mean) * statistics.rstd *
                         parameter(task.norm.weight, c, 1.0f) +
                     parameter(task.norm.bias, c, 0.0f));
    if (task.mean) task.mean[row] = statistics.mean;
    if (task.rstd) task.rstd[row] = statistics.rstd;
    if (task.codes.values)
      quantize_rows_plain({.rows = 1,
                           .width = width,
                           .x = y,
                           .values = task.codes.values + at,
                           .scales = task.codes.scales + row,
                           .largest = task.codes.largest});
  }
}

namespace {

/// Column sums of all rows, added to the task's at the end.
struct Sums {
  std::vector<double> weight, bias, gamma, branch;
  explicit Sums(int64_t width)
      : weight(static_cast<size_t>(width)), bias(weight), gamma(weight), branch(weight) {}
};

void add(const std::vector<double>& sums, float* to) {
  for (size_t c = 0; c < sums.size() && to; ++c)
    to[c] = static_cast<float>(static_cast<double>(to[c]) + sums[c]);
}

/// dx of one row. With g = dy weight: rstd (g - mean(g) - xhat mean(g xhat)), the first mean only with a mean in forward.
void norm_row_backward(const ResidualNormBackward& task, int64_t row, Sums& sums) {
  const int64_t width = task.shape.width, at = row * width;
  const float mean = task.norm.is_rms ? 0.0f : task.mean[row], rstd = task.rstd[row];
  const auto normed = [&](int64_t c) { return (from_bf16(task.sum[at + c]) - mean) * rstd; };
  const auto g = [&](int64_t c) {
    return from_bf16(task.dy[at + c]) * parameter(task.norm.weight, c, 1.0f);
  };
  double middle = 0, slope = 0;
  for (int64_t c = 0; c < width; ++c) {
    middle += g(c);
    slope += static_cast<double>(g(c)) * normed(c);
  }
  const float mean_g =
      task.norm.is_rms ? 0.0f : static_cast<float>(middle / static_cast<double>(width));
  const float mean_gx = static_cast<float>(slope / static_cast<double>(width));
  for (int64_t c = 0; c < width; ++c) {
    const float dy = from_bf16(task.dy[at + c]);
    sums.weight[c] += static_cast<double>(dy) * normed(c);
    sums.bias[c] += dy;
    const float past = task.dsum ? from_bf16(task.dsum[at + c]) : 0.0f;
    task.dx[at + c] = to_bf16(past + rstd * (g(c) - mean_g - normed(c) * mean_gx));
  }
}

/// dbranch of one row from dx as stored.
void branch_row_backward(const ResidualNormBackward& task, const uint16_t* dx, int64_t row,
                         Sums& sums) {
  const int64_t width = task.shape.width, at = row * width;
  const float keep = keep_of(task.branch, task.shape, row);
  for (int64_t c = 0; c < width; ++c) {
    float d = from_bf16(dx[at + c]);
    if (task.dgamma)
      sums.gamma[c] += static_cast<double>(keep * from_bf16(task.branch.values[at + c])) * d;
    if (task.branch.is_scaled()) {
      const uint16_t bits = to_bf16(scale_of(task.branch, keep, c) * d);
      if (task.dbranch) task.dbranch[at + c] = bits;
      d = from_bf16(bits);
    }
    sums.branch[c] += d;
  }
}

}  // namespace

void residual_norm_backward_plain(const ResidualNormBackward& task) {
  const int64_t width = task.shape.width;
  check_width("residual_norm_backward", width, kMostNormWidth);
  Sums sums(width);
  for (int64_t row = 0; row < task.shape.rows(); ++row) {
    const uint16_t* dx = task.dx;
    if (task.dy) {
      norm_row_backward(task, row, sums);
    } else {
      dx = task.dsum;
      for (int64_t i = row * width; i < (row + 1) * width && task.dx; ++i) task.dx[i] = dx[i];
    }
    branch_row_backward(task, dx, row, sums);
  }
  add(sums.weight, task.dy ? task.dweight : nullptr);
  add(sums.bias, task.dy ? task.dbias : nullptr);
  add(sums.gamma, task.dgamma);
  add(sums.branch, task.branch_sums);
}

}  // namespace vitrail::kernels
