#pragma once
/// Time and error of every way of computing attention at given shapes, on random bf16 values that lie packed as the
/// projection gives them.
///
/// Kinds    cudnn (kernels::library_attention), short, narrow (own kernels), aten-cudnn, aten-flash, aten (LibTorch's
///          own choice), plain (the formula, where its matrices fit). Kinds that a shape or build lacks are left out.
/// Rates    4 B N L^2 E operations forward, 14 forward and backward, whatever a kernel really does.
/// Error    relative to the formula in fp64, sqrt(sum of squared differences / sum of squares), over one group of heads of
///          the last sample; backward: the worst of dq, dk, dv.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "vitrail/kernels/attention.h"

namespace vitrail::train {

struct AttentionBenchOptions {
  std::vector<kernels::AttentionShape> shapes;
  std::vector<std::string> kinds;  // empty: all
  double seconds = 0.6;            // for each kind and shape, in three turns
  bool backward = true;
  double value_scale = 1;  // of q and k; 10 makes softmax nearly choose
};

struct AttentionTime {
  kernels::AttentionShape shape;
  std::string kind;
  double forward_ms = 0, forward_tflops = 0;  // median
  double both_ms = 0, both_tflops = 0;        // forward and backward; 0 when not asked for
  std::optional<double> forward_ratio,
      both_ratio;  // time of cudnn (else aten-cudnn, else aten) / this one's
  double forward_error = 0, backward_error = 0;
  int64_t workspace_bytes = 0;
  double build_ms = 0;  // of the kernel object
};

struct AttentionBench {
  std::string device;
  std::vector<AttentionTime> rows;
};

/// The shapes that the documentation's table holds.
std::vector<kernels::AttentionShape> usual_attention_shapes(at::Device device);
/// "256x197x12x64": samples, tokens, heads, head width; a fifth number: heads of k and v. throws ConfigError.
kernels::AttentionShape parse_attention_shape(const std::string& text, bool has_lengths);

AttentionBench bench_attention(const AttentionBenchOptions& options, at::Device device);
/// A table.
std::string describe(const AttentionBench& bench);
std::string to_json(const AttentionBench& bench);

}  // namespace vitrail::train
