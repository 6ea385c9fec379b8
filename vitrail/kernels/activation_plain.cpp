#include <cmath>
#include <vector>

#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/quantize.h"

namespace vitrail::kernels {
namespace {

constexpr float kSqrtHalf = 0.7071067811865476f;
constexpr float kDensity = 0.3989422804014327f;    // 1 / sqrt(2 pi)
constexpr float kTanhScale = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kTanhCube = 0.044715f;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

struct Slope {
  float value, dpre, dgate;
};

Slope gelu_erf(float x) {
  const float below = 0.5f * std::erfc(-kSqrtHalf * x);
  return {x * below, below + x * kDensity * std::exp(-0.5f * x * x), 0.0f};
}

/// (1 + tanh u) / 2 = sigmoid(2 u).
Slope gelu_tanh(float x) {
  const float s = sigmoid(2.0f * kTanhScale * (x + kTanhCube * x * x * x));
  const float inner = 2.0f * kTanhScale * (1.0f + 3.0f * kTanhCube * x * x);
  return {x * s, s + x * inner * s * (1.0f - s), 0.0f};
}

Slope silu_gate(float x, float gate) {
  const float s = sigmoid(gate);
  return {gate * s * x, gate * s, x * s * (1.0f + gate * (1.0f - s))};
}

Slope slope(const Activation& task, int64_t i) {
  const float x = from_bf16(task.pre[i]);
  switch (task.kind) {
    case ActivationKind::gelu_erf:
      return gelu_erf(x);
    case ActivationKind::gelu_tanh:
      return gelu_tanh(x);
    case ActivationKind::silu_gate:
      return silu_gate(x, from_bf16(task.gate[i]));
  }
  return {};
}

void add(const std::vector<double>& sums, float* to) {
  for (size_t c = 0; c < sums.size() && to; ++c)
    to[c] = static_cast<float>(static_cast<double>(to[c]) + sums[c]);
}

/// `x` [rows, width] as codes.
void write_codes(const uint16_t* x, int64_t rows, int64_t width, const CodeRows& codes) {
  if (!codes.values) return;
  quantize_rows_plain({.rows = rows,
                       .width = width,
                       .x = x,
                       .values = codes.values,
                       .scales = codes.scales,
                       .largest = codes.largest});
}

/// `given`, or memory of `count` values where it is null.
uint16_t* given_or(uint16_t* given, std::vector<uint16_t>& own, int64_t count) {
  if (!given) own.resize(static_cast<size_t>(count));
  return given ? given : own.data();
}

}  // namespace

void activation_plain(const Activation& task) {
  check_width("activation", task.width);
  const int64_t count = task.rows * task.width;
  std::vector<uint16_t> own;
  uint16_t* const out = given_or(task.out, own, count);
  for (int64_t i = 0; i < count; ++i) out[i] = to_bf16(slope(task, i).value);
  write_codes(out, task.rows, task.width, task.codes);
}

void activation_backward_plain(const ActivationBackward& task) {
  const int64_t width = task.forward.width;
  check_width("activation_backward", width);
  std::vector<double> pre_sums(static_cast<size_t>(width)), gate_sums(pre_sums);
  std::vector<uint16_t> own;
  uint16_t* const dpre = given_or(task.dpre, own, task.forward.rows * width);
  for (int64_t i = 0; i < task.forward.rows * width; ++i) {
    const Slope s = slope(task.forward, i);
    const float dout = from_bf16(task.dout[i]);
    if (task.forward.out) task.forward.out[i] = to_bf16(s.value);
    dpre[i] = to_bf16(dout * s.dpre);
    pre_sums[i % width] += from_bf16(dpre[i]);
    if (task.forward.kind != ActivationKind::silu_gate) continue;
    task.dgate[i] = to_bf16(dout * s.dgate);
    gate_sums[i % width] += from_bf16(task.dgate[i]);
  }
  write_codes(dpre, task.forward.rows, width, task.dpre_codes);
  add(pre_sums, task.pre_sums);
  add(gate_sums, task.forward.kind == ActivationKind::silu_gate ? task.gate_sums : nullptr);
}

void column_sums_plain(const uint16_t* x, int64_t rows, int64_t width, int64_t stride,
                       float* sums) {
  check_width("column sums", width);
  std::vector<double> totals(static_cast<size_t>(width));
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < width; ++c) totals[c] += from_bf16(x[row * stride + c]);
  add(totals, sums);
}

}  // namespace vitrail::kernels
