#pragma once
/// Matrix products of bf16 or 8-bit values on the tensor cores, by the library's best algorithm for each shape.
///
///   D [m, n] = op(A) [m, k] op(B) [k, n] + beta C + bias [n]      row-major
/// 8 bits   A [m, k] and B [n, k] both sum over their last axis (a_transposed false, b_transposed true) and come with
///          scales (kernels/quantize.h): one for each of their rows, or one for the whole. k and n multiples of 16; not both
///          e5m2.
/// Choice   the first call of a new shape takes the library's own choice; tune() times its candidates hot, interleaved,
///          and the table of choices can be saved and loaded (one file a device and library version).
/// Needs    device pointers, 16-byte aligned. Sums in fp32. Asynchronous on the stream; no allocation and no host
///          synchronisation but in tune(), so it may be captured.
/// Streams  one library's calls share its workspace: those on different streams must be ordered, or have a library each.
/// Threads  run() from any.
/// throws   Error with the shape in a build without CUDA or when the library has no algorithm.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

enum class GemmType { bf16, e4m3, e5m2 };
constexpr GemmType gemm_type(Fp8 format) {
  return format == Fp8::e4m3 ? GemmType::e4m3 : GemmType::e5m2;
}

struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  bool a_transposed = false;  // A is stored [k, m]
  bool b_transposed = false;  // B is stored [n, k], as the weight of a linear layer
  bool has_bias = false;      // bf16 [n]
  bool adds = false;          // beta 1, else 0
  bool is_f32 = false;        // of C and D; else bf16
  GemmType a_type = GemmType::bf16, b_type = GemmType::bf16;  // both or neither of 8 bits
  bool row_scales = false;  // 8 bits: a scale for each row of A and of B; else one each
  bool fast_sums =
      false;  // 8 bits: sums of about 14 bits of mantissa, as fast as the tensor cores make them
  bool is_fp8() const { return a_type != GemmType::bf16; }
  bool operator==(const GemmShape&) const = default;
};

struct GemmOperands {
  const uint16_t *a = nullptr, *b = nullptr, *bias = nullptr;
  const void* c = nullptr;  // null: D itself
  void* d = nullptr;
  const uint8_t *a8 = nullptr, *b8 = nullptr;  // 8 bits: instead of a and b
  const float *a_scales = nullptr, *b_scales = nullptr;
};

/// How one shape is computed, and how long the candidates took.
struct GemmChoice {
  GemmShape shape;
  std::string algorithm;        // of the library, for the log and the table
  double ms = 0, first_ms = 0;  // the choice's, that of the library's own; 0 = not timed
};

class GemmLibrary {
 public:
  /// Takes `workspace_bytes` of device memory for itself.
  explicit GemmLibrary(int device, int64_t workspace_bytes = int64_t{64} << 20);
  ~GemmLibrary();
  GemmLibrary(const GemmLibrary&) = delete;
  GemmLibrary& operator=(const GemmLibrary&) = delete;

  void run(const GemmShape& shape, const GemmOperands& operands, void* stream);
  /// Times candidates of these shapes on random values, in memory of its own, in turns, for about `seconds` in all.
  void tune(const std::vector<GemmShape>& shapes, double seconds, void* stream);
  std::vector<GemmChoice> choices() const;
  /// Text; choices of another device or library version are ignored on loading. Returns how many fit.
  void save(const std::string& path) const;
  int load(const std::string& path);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same on host memory by plain loops, summed in fp64 and rounded once.
void gemm_plain(const GemmShape& shape, const GemmOperands& operands);

}  // namespace vitrail::kernels
