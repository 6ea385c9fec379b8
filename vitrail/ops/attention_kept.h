#pragma once
/// Results of attention's core that outlive the pass that made them: a second pass over the same tokens takes them
/// instead of computing them, and backward goes on from them.
///
/// Which calls  those of ops::sdpa (and of cores that say so), wherever they are made (inside the exchanges of sequence parallelism too), where the
///              library has a backward of its own: CPU; on a GPU flash, cuDNN and memory-efficient attention. Others are
///              noted as not kept and computed again. The formula written out (plain_attention) is not noted.
/// Gradients    the bits of a pass that kept its graph, where the library's backward is deterministic.
/// Threads      a scope is the calling thread's own; scopes do not nest.
/// Memory       of one call with B samples, N heads, L tokens, E head width: B N L E elements and B N L fp32 values.

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// What backward needs of one call besides q, k and v.
struct KeptCore {
  at::Tensor out;                // undefined: not kept
  std::vector<at::Tensor> more;  // log-sum-exp and what else the library's backward asks for
  int64_t library = 0;           // at::SDPBackend
  int64_t max_q = 0, max_k = 0;
  bool is_kept() const { return out.defined(); }
};

/// While one lives, every call of sdpa() on this thread, without grad mode, adds its results to `cores`.
class KeepCores {
 public:
  explicit KeepCores(std::vector<KeptCore>& cores);
  ~KeepCores();
  KeepCores(const KeepCores&) = delete;
  KeepCores& operator=(const KeepCores&) = delete;
};

/// While one lives, the calls of sdpa() on this thread take their results from `cores`, in the same order.
class TakeCores {
 public:
  explicit TakeCores(const std::vector<KeptCore>& cores);
  ~TakeCores();
  TakeCores(const TakeCores&) = delete;
  TakeCores& operator=(const TakeCores&) = delete;
};

// For cores other than sdpa, once a call:
/// The result to hand out (a detached view of it) instead of computing it; null = compute. Valid while the scope lives.
const KeptCore* taken_core();
/// What was computed. Kept while a scope says so; more[0] is as large as the log-sum-exp.
void keep_core(const KeptCore& core);

/// For sdpa(): q, k, v and the mask [B, 1, 1, L] as the library gets them. The result of this call when a scope says
/// where to keep it or where to take it from, else nothing.
std::optional<at::Tensor> kept_sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const std::optional<at::Tensor>& mask, bool shares_heads);

}  // namespace vitrail::ops
