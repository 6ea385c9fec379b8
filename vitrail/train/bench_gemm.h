#pragma once
/// Time of the matrix products of a recipe's blocks, each by the library's own choice and by the fastest that timing
/// finds; of the product fused with GELU too, where the build has it.
///
/// Positions  qkv, proj, up (twice as wide for SwiGLU), down; of each y = x W^T + b, the gradient of x, that of W (fp32).
/// On a CPU   LibTorch's product in the recipe's precision, and nothing is tuned.

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "vitrail/config/recipe.h"
#include "vitrail/kernels/gemm.h"

namespace vitrail::train {

struct GemmPosition {
  std::string trunk, position,
      pass;           // "blocks", "up", "forward" | "input" | "weight" | "forward+gelu"
  int64_t count = 1;  // of them in a step
  kernels::GemmShape shape;
};

struct GemmTime {
  GemmPosition position;
  double first_ms = 0,
         ms = 0;      // the library's own choice, the fastest found; alike where nothing was tuned
  double tflops = 0;  // by the latter
  std::string algorithm;  // of the latter
};

struct GemmBench {
  std::string recipe, device;
  std::vector<GemmTime> rows;
  double first_ms = 0, ms = 0, tflops = 0;  // of all products of a step
};

struct GemmBenchOptions {
  double seconds = 0.5;  // for each shape
  std::string table;     // the choices are written here when this names a file
};

/// The products of a step on one device without division, by trunk and position.
std::vector<GemmPosition> gemm_positions(const config::Recipe& recipe);
GemmBench bench_gemm(const config::Recipe& recipe, const std::string& name,
                     const GemmBenchOptions& options, at::Device device);
std::string describe(const GemmBench& bench);
std::string to_json(const GemmBench& bench);

}  // namespace vitrail::train
