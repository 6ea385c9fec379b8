#include "vitrail/train/bench_gemm.h"

#include <algorithm>
#include <functional>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm_gelu.h"
#include "vitrail/kernels/gemm_table.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_timer.h"
#include "vitrail/train/plan.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

using kernels::GemmChoice;
using kernels::GemmLibrary;
using kernels::GemmOperands;
using kernels::GemmShape;

double operations(const GemmShape& s) {
  return 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
}

/// Forward, gradient of x and gradient of W of y = x W^T + b.
void add_linear(std::vector<GemmPosition>& all, const PlanTrunk& trunk, const char* position,
                int64_t count, int64_t rows, int64_t in, int64_t out) {
  const auto add = [&](const char* pass, const GemmShape& shape) {
    all.push_back({trunk.name, position, pass, count, shape});
  };
  add("forward", {.m = rows, .n = out, .k = in, .b_transposed = true, .has_bias = true});
  add("input", {.m = rows, .n = in, .k = out});
  add("weight", {.m = out, .n = in, .k = rows, .a_transposed = true, .is_f32 = true});
}

/// Operands in memory of their own, random.
struct Operands {
  at::Tensor a, b, bias, d, aux;
  GemmOperands view;

  Operands(const GemmShape& s, at::Device device)
      : a(random({s.m * s.k}, device)),
        b(random({s.k * s.n}, device)),
        bias(random({s.n}, device)),
        d(at::empty({s.m * s.n}, a.options().dtype(s.is_f32 ? at::kFloat : at::kBFloat16))) {
    const auto bits = [](const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); };
    view = {bits(a), bits(b), bits(bias), nullptr, d.data_ptr()};
  }
  static at::Tensor random(at::IntArrayRef sizes, at::Device device) {
    return at::randn(sizes, at::TensorOptions().device(device).dtype(at::kBFloat16));
  }
};

double timed(at::Device device, double seconds, const std::function<void()>& work) {
  const double about = time_hot(device, seconds / 2, work);
  const auto calls = static_cast<int64_t>(5e2 * seconds / about);
  return quantile(time_each(device, std::clamp<int64_t>(calls, 3, 5000), work), 0.5);
}

/// LibTorch's product of the same sides.
double torch_ms(const GemmShape& s, at::ScalarType dtype, double seconds) {
  const auto options = at::TensorOptions().dtype(dtype);
  const auto operand = [&](bool transposed, int64_t rows, int64_t columns) {
    return transposed ? at::randn({columns, rows}, options).t()
                      : at::randn({rows, columns}, options);
  };
  const at::Tensor a = operand(s.a_transposed, s.m, s.k), b = operand(s.b_transposed, s.k, s.n);
  at::Tensor d = at::empty({s.m, s.n}, options);
  return timed(at::kCPU, seconds, [&] { at::mm_out(d, a, b); });
}

void time_on_cpu(GemmBench& bench, const config::Recipe& recipe, double seconds) {
  const at::ScalarType dtype = recipe.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  for (GemmTime& row : bench.rows) {
    row.ms = row.first_ms = torch_ms(row.position.shape, dtype, seconds);
    row.algorithm = "LibTorch's";
  }
}

void time_on_gpu(GemmBench& bench, const GemmBenchOptions& options, at::Device device) {
  parallel::set_device(device);
  GemmLibrary library(device.index());
  std::vector<GemmShape> shapes;
  for (const GemmTime& row : bench.rows)
    if (std::find(shapes.begin(), shapes.end(), row.position.shape) == shapes.end())
      shapes.push_back(row.position.shape);
  library.tune(shapes, options.seconds * static_cast<double>(shapes.size()),
               parallel::current_stream(device));
  const std::vector<GemmChoice> choices = library.choices();
  for (GemmTime& row : bench.rows)
    for (const GemmChoice& choice : choices)
      if (choice.shape == row.position.shape) {
        row.first_ms = choice.first_ms;
        row.ms = choice.ms;
        row.algorithm = choice.algorithm;
      }
  if (!options.table.empty()) library.save(options.table);
}

/// The kernel that also takes GELU, beside the same product without.
std::vector<GemmTime> time_fused(const GemmBench& bench, const GemmBenchOptions& options,
                                 at::Device device) {
  std::vector<GemmTime> rows;
  for (const GemmTime& row : bench.rows) {
    const GemmShape& shape = row.position.shape;
    if (row.position.position != "up" || !kernels::has_gemm_gelu() ||
        !kernels::fits_gemm_gelu(shape))
      continue;
    const Operands operands(shape, device);
    const at::Tensor aux = at::empty_like(operands.d);
    const at::Tensor workspace = at::empty({kernels::gemm_gelu_workspace_bytes(shape) + 256},
                                           aux.options().dtype(at::kByte));
    GemmTime fused = row;
    fused.position.pass = "forward+gelu";
    fused.algorithm = "CUTLASS; beside the bare product's own choice";
    fused.first_ms = row.ms;
    fused.ms = timed(device, options.seconds, [&] {
      kernels::gemm_gelu(shape, operands.view, static_cast<uint16_t*>(aux.data_ptr()),
                         workspace.data_ptr(), parallel::current_stream(device));
    });
    rows.push_back(fused);
  }
  return rows;
}

}  // namespace

std::vector<GemmPosition> gemm_positions(const config::Recipe& recipe) {
  const PlanSubject subject(recipe);
  const int64_t passes = std::max<int64_t>(1, recipe.train.micro_batches);
  const int64_t samples = recipe.data.batch_size / passes;
  std::vector<GemmPosition> all;
  for (const PlanTrunk& trunk : subject.trunks()) {
    const int64_t rows = samples * trunk.tokens, count = trunk.depth * passes;
    const int64_t kv_width = trunk.width / trunk.heads * trunk.kv_heads;
    add_linear(all, trunk, "qkv", count, rows, trunk.width, trunk.width + 2 * kv_width);
    add_linear(all, trunk, "proj", count, rows, trunk.width, trunk.width);
    add_linear(all, trunk, "up", count, rows, trunk.width, (trunk.swiglu ? 2 : 1) * trunk.hidden);
    add_linear(all, trunk, "down", count, rows, trunk.hidden, trunk.width);
  }
  return all;
}

GemmBench bench_gemm(const config::Recipe& recipe, const std::string& name,
                     const GemmBenchOptions& options, at::Device device) {
  const at::NoGradGuard no_grad;
  GemmBench bench{.recipe = name, .device = parallel::device_name(device)};
  for (GemmPosition& position : gemm_positions(recipe)) bench.rows.push_back({std::move(position)});
  VT_REQUIRE(ConfigError, !bench.rows.empty(), "[bench] {}: the model has no blocks", name);
  std::vector<GemmTime> fused;
  if (device.is_cuda()) {
    time_on_gpu(bench, options, device);
    fused = time_fused(bench, options, device);
  } else {
    VT_REQUIRE(ConfigError, options.table.empty(),
               "[bench] --table needs a GPU: nothing is tuned on a CPU");
    time_on_cpu(bench, recipe, options.seconds);
  }
  double work = 0;
  for (GemmTime& row : bench.rows) {
    const auto count = static_cast<double>(row.position.count);
    row.tflops = 1e-9 * operations(row.position.shape) / row.ms;
    bench.first_ms += count * row.first_ms;
    bench.ms += count * row.ms;
    work += count * operations(row.position.shape);
  }
  bench.tflops = 1e-9 * work / bench.ms;
  for (GemmTime& row : fused) {
    row.tflops = 1e-9 * operations(row.position.shape) / row.ms;
    bench.rows.push_back(std::move(row));
  }
  return bench;
}

std::string describe(const GemmBench& bench) {
  std::string text = fmt::format(
      "gemm  {}  {:.2f} ms a step by the library's own choices, {:.2f} tuned ({:.2f}x)  {:.1f} "
      "TFLOP/s  {}",
      bench.recipe, bench.first_ms, bench.ms, bench.first_ms / bench.ms, bench.tflops,
      bench.device);
  for (const GemmTime& row : bench.rows)
    text +=
        fmt::format("\n  {:<16} {:<5} {:<13} {:<38} {:>8.4f} -> {:>8.4f} ms  {:>6.1f} TFLOP/s  {}",
                    row.position.trunk, row.position.position, row.position.pass,
                    to_words(row.position.shape), row.first_ms, row.ms, row.tflops, row.algorithm);
  return text;
}

std::string to_json(const GemmBench& bench) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const GemmTime& row : bench.rows) {
    const GemmShape& s = row.position.shape;
    rows.push_back({{"trunk", row.position.trunk},
                    {"position", row.position.position},
                    {"pass", row.position.pass},
                    {"count", row.position.count},
                    {"m", s.m},
                    {"n", s.n},
                    {"k", s.k},
                    {"kind", to_words(s)},
                    {"first_ms", row.first_ms},
                    {"ms", row.ms},
                    {"tflops", row.tflops},
                    {"algorithm", row.algorithm}});
  }
  return nlohmann::ordered_json{{"bench", "gemm"},
                                {"recipe", bench.recipe},
                                {"device", bench.device},
                                {"first_ms", bench.first_ms},
                                {"ms", bench.ms},
                                {"tflops", bench.tflops},
                                {"rows", rows}}
      .dump(2);
}

}  // namespace vitrail::train
