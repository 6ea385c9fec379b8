#include <cmath>
#include <vector>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/heads.h"

namespace vitrail::kernels {
namespace {

constexpr int64_t kMostHeadWidth = 256;

/// One head of one token.
struct Place {
  int64_t sample, token, head;
  int64_t row;     // of samples and tokens
  int64_t of_qkv;  // where it begins in qkv and dqkv
};

template <class Work>
void for_heads(const HeadsShape& shape, const Work& work) {
  const int64_t in_row = (shape.heads + 2 * shape.kv_heads) * shape.head_width;
  for (int64_t sample = 0; sample < shape.samples; ++sample)
    for (int64_t token = 0; token < shape.tokens; ++token)
      for (int64_t head = 0; head < shape.turned(); ++head) {
        const int64_t row = sample * shape.tokens + token;
        work(Place{sample, token, head, row, row * in_row + head * shape.head_width});
      }
}

/// Turns neighbouring pairs by their angles (by minus them: back).
void turn(const Heads& task, const Place& place, bool back, std::vector<float>& x) {
  if (!task.cos) return;
  const int64_t pairs = task.shape.head_width / 2;
  const int64_t at = place.sample * task.table_stride + place.token * pairs;
  for (int64_t p = 0; p < pairs; ++p) {
    const float c = task.cos[at + p], s = back ? -task.sin[at + p] : task.sin[at + p];
    const float a = x[2 * p], b = x[2 * p + 1];
    x[2 * p] = a * c - b * s;
    x[2 * p + 1] = a * s + b * c;
  }
}

std::vector<float> values_of(const uint16_t* bits, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[i] = from_bf16(bits[i]);
  return values;
}

/// x becomes (x - mean) / deviation; returns 1 / deviation.
float normalise(const NormParameters& norm, std::vector<float>& x) {
  const auto width = static_cast<double>(x.size());
  double sum = 0, squares = 0;
  for (const float value : x) sum += value;
  const float mean = norm.is_rms ? 0.0f : static_cast<float>(sum / width);
  for (const float value : x) squares += std::pow(static_cast<double>(value) - mean, 2);
  const auto rstd = static_cast<float>(1.0 / std::sqrt(squares / width + norm.eps));
  for (float& value : x) value = (value - mean) * rstd;
  return rstd;
}

float parameter(const uint16_t* values, size_t i, float otherwise) {
  return values ? from_bf16(values[i]) : otherwise;
}

struct Sums {
  std::vector<double> weight, bias;
  explicit Sums(int64_t width) : weight(static_cast<size_t>(width)), bias(weight) {}
  void add_to(float* dweight, float* dbias) const {
    for (size_t c = 0; c < weight.size(); ++c) {
      if (dweight) dweight[c] = static_cast<float>(dweight[c] + weight[c]);
      if (dbias) dbias[c] = static_cast<float>(dbias[c] + bias[c]);
    }
  }
};

/// d becomes the gradient of x, which is what was normed.
void norm_backward(const NormParameters& norm, std::vector<float> x, std::vector<float>& d,
                   Sums& sums) {
  const float rstd = normalise(norm, x);
  const auto width = static_cast<double>(x.size());
  double middle = 0, slope = 0;
  for (size_t c = 0; c < x.size(); ++c) {
    sums.weight[c] += static_cast<double>(d[c]) * x[c];
    sums.bias[c] += d[c];
    d[c] *= parameter(norm.weight, c, 1.0f);
    middle += d[c];
    slope += static_cast<double>(d[c]) * x[c];
  }
  const float mean_d = norm.is_rms ? 0.0f : static_cast<float>(middle / width);
  const auto mean_dx = static_cast<float>(slope / width);
  for (size_t c = 0; c < x.size(); ++c) d[c] = rstd * (d[c] - mean_d - x[c] * mean_dx);
}

}  // namespace

void prepare_heads_plain(const Heads& task) {
  const HeadsShape& shape = task.shape;
  check_width("prepare_heads", shape.head_width, kMostHeadWidth);
  for_heads(shape, [&](const Place& place) {
    std::vector<float> x = values_of(task.qkv + place.of_qkv, shape.head_width);
    if (task.has_norm) {
      const NormParameters& norm = place.head < shape.heads ? task.q_norm : task.k_norm;
      normalise(norm, x);
      for (size_t c = 0; c < x.size(); ++c)
        x[c] = x[c] * parameter(norm.weight, c, 1.0f) + parameter(norm.bias, c, 0.0f);
    }
    turn(task, place, /*back=*/false, x);
    uint16_t* const out =
        task.qk + place.row * task.qk_token_stride + place.head * shape.head_width;
    for (size_t c = 0; c < x.size(); ++c) out[c] = to_bf16(x[c]);
  });
}

void prepare_heads_backward_plain(const HeadsBackward& task) {
  const Heads& forward = task.forward;
  const HeadsShape& shape = forward.shape;
  check_width("prepare_heads_backward", shape.head_width, kMostHeadWidth);
  Sums q(shape.head_width), k(shape.head_width);
  for_heads(shape, [&](const Place& place) {
    uint16_t* const gradient = task.dqkv + place.of_qkv;
    std::vector<float> d = values_of(gradient, shape.head_width);
    turn(forward, place, /*back=*/true, d);
    const bool is_q = place.head < shape.heads;
    if (forward.has_norm)
      norm_backward(is_q ? forward.q_norm : forward.k_norm,
                    values_of(forward.qkv + place.of_qkv, shape.head_width), d, is_q ? q : k);
    for (size_t c = 0; c < d.size(); ++c) gradient[c] = to_bf16(d[c]);
  });
  if (!forward.has_norm) return;
  q.add_to(task.dq_weight, task.dq_bias);
  k.add_to(task.dk_weight, task.dk_bias);
}

}  // namespace vitrail::kernels
