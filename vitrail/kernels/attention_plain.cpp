// Attention as its formula: a row of scores at a time, in fp64.

#include <cmath>
#include <vector>

#include "vitrail/kernels/attention.h"
#include "vitrail/kernels/bf16.h"

namespace vitrail::kernels {
namespace {

/// One head of one sample; row i of width values.
template <class T>
struct Rows {
  T* values;
  int64_t stride;
  T* operator[](int64_t i) const { return values + i * stride; }
};

template <class T>
Rows<T> rows_of(const HeadRows<T>& rows, int64_t sample, int64_t head, int64_t width) {
  return {rows.values + sample * rows.sample_stride + head * width, rows.token_stride};
}

double dot(const uint16_t* a, const uint16_t* b, int64_t width) {
  double sum = 0;
  for (int64_t e = 0; e < width; ++e)
    sum += static_cast<double>(from_bf16(a[e])) * static_cast<double>(from_bf16(b[e]));
  return sum;
}

void store(uint16_t* row, const std::vector<double>& values) {
  for (size_t e = 0; e < values.size(); ++e) row[e] = to_bf16(static_cast<float>(values[e]));
}

/// sum[e] += factor * row[e].
void add(std::vector<double>& sum, double factor, const uint16_t* row) {
  for (size_t e = 0; e < sum.size(); ++e) sum[e] += factor * static_cast<double>(from_bf16(row[e]));
}

int64_t valid_tokens(const AttentionShape& shape, const int32_t* lengths, int64_t sample) {
  return lengths ? lengths[sample] : shape.tokens;
}

double scale_of(const AttentionShape& shape) {
  return 1.0 / std::sqrt(static_cast<double>(shape.head_width));
}

void forward_head(const AttentionShape& shape, const AttentionForward& task, int64_t sample,
                  int64_t head) {
  const int64_t width = shape.head_width, kv_head = head / (shape.heads / shape.kv_heads);
  const int64_t keys = valid_tokens(shape, task.lengths, sample);
  const auto q = rows_of(task.q, sample, head, width);
  const auto k = rows_of(task.k, sample, kv_head, width),
             v = rows_of(task.v, sample, kv_head, width);
  const auto out = rows_of(task.out, sample, head, width);
  float* const lse = task.lse + (sample * shape.heads + head) * shape.tokens;
  std::vector<double> score(static_cast<size_t>(keys));
  for (int64_t i = 0; i < shape.tokens; ++i) {
    double most = -INFINITY, total = 0;
    for (int64_t j = 0; j < keys; ++j) {
      score[j] = scale_of(shape) * dot(q[i], k[j], width);
      most = std::fmax(most, score[j]);
    }
    std::vector<double> sum(static_cast<size_t>(width));
    for (int64_t j = 0; j < keys; ++j) {
      const double p = std::exp(score[j] - most);
      total += p;
      add(sum, p, v[j]);
    }
    for (double& value : sum) value /= total;
    store(out[i], sum);
    lse[i] = static_cast<float>(most + std::log(total));
  }
}

/// Gradients of one head, fp64.
struct Gradients {
  std::vector<std::vector<double>> dq, dk, dv;
  Gradients(int64_t tokens, int64_t width) {
    for (auto* rows : {&dq, &dk, &dv})
      rows->assign(static_cast<size_t>(tokens), std::vector<double>(static_cast<size_t>(width)));
  }
};

/// Adds what query head `head` does: p = exp(x - lse), ds = p (dout . v - dout . out). Keys that do not count get
/// nothing.
void backward_head(const AttentionShape& shape, const AttentionBackward& task, int64_t sample,
                   int64_t head, Gradients& sums) {
  const int64_t width = shape.head_width, kv_head = head / (shape.heads / shape.kv_heads);
  const int64_t keys = valid_tokens(shape, task.lengths, sample);
  const auto q = rows_of(task.q, sample, head, width);
  const auto k = rows_of(task.k, sample, kv_head, width),
             v = rows_of(task.v, sample, kv_head, width);
  const auto out = rows_of(task.out, sample, head, width),
             dout = rows_of(task.dout, sample, head, width);
  const float* const lse = task.lse + (sample * shape.heads + head) * shape.tokens;
  const double scale = scale_of(shape);
  for (int64_t i = 0; i < shape.tokens; ++i) {
    const double d = dot(out[i], dout[i], width);
    for (int64_t j = 0; j < keys; ++j) {
      const double p = std::exp(scale * dot(q[i], k[j], width) - static_cast<double>(lse[i]));
      const double ds = p * (dot(dout[i], v[j], width) - d);
      add(sums.dq[i], scale * ds, k[j]);
      add(sums.dk[j], scale * ds, q[i]);
      add(sums.dv[j], p, dout[i]);
    }
  }
}

}  // namespace

void attention_plain_forward(const AttentionShape& shape, const AttentionForward& task) {
  for (int64_t sample = 0; sample < shape.samples; ++sample)
    for (int64_t head = 0; head < shape.heads; ++head) forward_head(shape, task, sample, head);
}

void attention_plain_backward(const AttentionShape& shape, const AttentionBackward& task) {
  const int64_t width = shape.head_width, sharing = shape.heads / shape.kv_heads;
  for (int64_t sample = 0; sample < shape.samples; ++sample)
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      Gradients sums(shape.tokens, width);
      for (int64_t head = kv_head * sharing; head < (kv_head + 1) * sharing; ++head) {
        for (auto& row : sums.dq) row.assign(static_cast<size_t>(width), 0.0);
        backward_head(shape, task, sample, head, sums);
        for (int64_t i = 0; i < shape.tokens; ++i)
          store(rows_of(task.dq, sample, head, width)[i], sums.dq[i]);
      }
      for (int64_t j = 0; j < shape.tokens; ++j) {
        store(rows_of(task.dk, sample, kv_head, width)[j], sums.dk[j]);
        store(rows_of(task.dv, sample, kv_head, width)[j], sums.dv[j]);
      }
    }
}

}  // namespace vitrail::kernels
