#pragma once
/// The engine whose blocks have forward and backward of their own: few passes over memory, every gradient explicit.
///
/// Forward   n1 = norm1(x); qkv = n1 Wqkv^T + b; heads normed and turned; o = attention; x1 = x + keep gamma (o Wproj^T
///           + b) and n2 = norm2(x1) in one pass; u = n2 W1^T + b1; g = act(u); x2 = x1 + keep gamma (g W2^T + b2).
///           Without LayerScale, drop-path and dropout the additions are the products' own.
/// Backward  one pass a norm, which also sums the gradients of gamma, beta and the D-wide biases; fc1's bias comes from
///           the activation's pass. The bias of k without rotary and qk-norm has no gradient (softmax forgets what moves
///           all scores of a query alike) and gets none; that of v is Wproj^T times proj's (softmax rows sum to 1).
/// Runs      every option of a block on the CPU (fp32, fp64, bf16) and on CUDA in bf16. Attention dropout, the written-out
///           formula, divided tokens (sequence parallelism), key masks with gaps on a GPU and shapes without a kernel run
///           attention's core alone under a local graph. Tensor-parallel blocks, fp32 on a GPU and widths that are no
///           multiple of 8 there go to the autograd engine. One log line each says why.
/// Gradients are added to the parameters' .grad in the statistics type (ops/norm.h): fp32 for bf16 parameters.
///
/// Memory    of a trunk of d blocks between forward and backward, in the terms of nn/engine.h:
///             none                d ((8 + 2 h) a + l)     x, n1, qkv, o, x1, n2, u, g; 1 h more for SwiGLU; 2 a more with
///                                                         LayerScale (what it scales), 3 a with qk-norm (its q and k)
///             none, keeps_cheap   d ((6 + h) a + l)       without n1, n2, g: computed again from x, x1, u; q and k of
///               = false                                   qk-norm too
///             selective           d (2 a + l)             x, o
///             block               d a                     x
///             every_k             as block for the first of every k blocks, as none for the others
///           A GELU block of h = 4 keeps 16 a, or 10 a without what is cheap. A block at work needs about (4 + 2 h) a
///           besides. A store takes what recomputed blocks keep.
/// Recomputed gradients are equal bit for bit where the device's operations are deterministic.

#include <memory>
#include <string>

#include "vitrail/nn/engine.h"
#include "vitrail/ops/packed_attention.h"

namespace vitrail::nn {

/// What the four linear layers of a block multiply (nn/fused_fp8.h). fp8: forward and gradients of inputs in e4m3, those of
/// weights in bf16; fp8_gradients: those of weights in e4m3 too.
enum class Products { bf16, fp8, fp8_gradients };

struct FusedOptions {
  ops::AttentionKind attention = ops::AttentionKind::automatic;
  bool keeps_cheap = true;  // results of norms and activation; false: computed again in backward
  Products products = Products::bf16;
  /// Blocks for which there are no kernels run under autograd without a word, those on the CPU too.
  bool only_with_kernels = false;
};

/// What the training section says.
FusedOptions fused_options(const config::Train& train);

class FusedEngine : public BlockEngine {
 public:
  // name() is that of the engine that ran the last block.
  /// What each block keeps, in bytes by name, as the last forward pass left it.
  virtual std::string describe() const = 0;
};

std::unique_ptr<FusedEngine> fused_engine(const EngineOptions& options = {},
                                          const FusedOptions& fused = {});

}  // namespace vitrail::nn
