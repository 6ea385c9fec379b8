#pragma once
/// The moments of AdamW in two bytes an element, or one, over what a rank keeps of the flat arenas
/// (kernels/compact_adamw.h).
///
/// Draws    Rounding draws by the parameter's name and the element's place in it, so that any division over data ranks
///          rounds as one rank. Tensor ranks count within their part of a parameter; what they all hold rounds alike.
/// Memory   4 (bf16) or 2 1/64 (fp8) bytes a kept element, and 8 for every 128 of them.

#include <ATen/core/Tensor.h>

#include "vitrail/kernels/compact_adamw.h"
#include "vitrail/parallel/unit.h"

namespace vitrail::train {

class CompactMoments {
 public:
  /// Zeros beside the gradient. `state`: bf16 or fp8.
  CompactMoments(const parallel::UnitSet& units, const std::string& state);

  /// The moments, exponents and places of elements [first, first + count) in `arena`, which holds the rest of the arguments
  /// already; both are multiples of kernels::kCompactBlock.
  void put_into(kernels::CompactArena& arena, int64_t first, int64_t count) const;

  /// Both moments in fp32, on the host.
  struct Expanded {
    at::Tensor first, second;
  };
  Expanded expand() const;
  /// Takes over fp32 moments. Those that expand() gave come back as the same values; others are rounded to the nearest.
  void compact(const Expanded& moments);

  int64_t bytes() const;

 private:
  kernels::CompactArena arena_of(const at::Tensor& first, const at::Tensor& second,
                                 const at::Tensor& first_exponent,
                                 const at::Tensor& second_exponent) const;

  kernels::StateType type_;
  int64_t count_;
  at::Tensor first_, second_;                    // [count], bf16 or bytes
  at::Tensor first_exponent_, second_exponent_;  // [count / block]; fp8 only
  at::Tensor places_;                            // [count / block], int64
};

/// Seed of the rounding of every run: it draws by name and place alone.
constexpr uint64_t kRoundingSeed = 0x76697472;

}  // namespace vitrail::train
