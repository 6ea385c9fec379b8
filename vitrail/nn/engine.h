#pragma once
/// The engines that run blocks, and what they keep between forward and backward.
///
/// Memory   of a trunk of d blocks at its peak, at the begin of backward, with
///            a = B L D activations, h = MLP hidden width / D, l = B N L fp32 sums of attention,
///            g = (8 + 2 h) a + l   what one GELU block's graph holds (3 more of h for SwiGLU, without dropouts and
///                                  LayerScale, which hold 1 a more each):
///            none       d g
///            block      d a + g
///            every_k    ceil(d / k) a + (d - ceil(d / k)) g + g
///            selective  d (2 a + l) + g
///          A store moves the d terms of recomputed blocks to the host (parallel/offload_activations.h says what of
///          them the device holds).
/// Gradients of all kinds are equal bit for bit where the device's operations are deterministic.
/// Paper    Chen et al. 2016, arXiv:1604.06174; selective: Korthikanti et al. 2022, arXiv:2205.05198.

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/stack.h"

namespace vitrail::config {
struct Train;
}

namespace vitrail::nn {

enum class Recompute {
  none,
  block,     // keep a block's input, compute it again in backward
  every_k,   // the same for the first of every k blocks
  selective  // the same, but the results of attention's core are kept (ops/attention_kept.h)
};

/// Tensors in the hands of a store; destroyed without restore() when a pass has no backward.
class StoredTensors {
 public:
  virtual ~StoredTensors() = default;
  /// The tensors again, in their order and on their device. Once only.
  virtual std::vector<at::Tensor> restore() = 0;
};

/// Where what recomputed blocks keep lies between forward and backward.
class ActivationStore {
 public:
  virtual ~ActivationStore() = default;
  /// Takes over tensors of the current stream, all defined; nobody writes to them any more. What was kept last is
  /// restored first, within a pass.
  virtual std::unique_ptr<StoredTensors> keep(std::vector<at::Tensor> tensors) = 0;
};

struct EngineOptions {
  Recompute recompute = Recompute::none;
  int every = 2;                     // every_k: its k
  ActivationStore* store = nullptr;  // null: what is kept stays as it is; outlives the engine
};

/// What the training section says: recompute and recompute_every.
EngineOptions engine_options(const config::Train& train);
/// What is recomputed and where the rest is kept, in words to append to an engine's name.
std::string recompute_words(const EngineOptions& options);

/// The reference engine: plain ATen under a local graph; any device, every option.
std::unique_ptr<BlockEngine> autograd_engine(const EngineOptions& options = {});

/// The engine that train.engine names; auto: fused for blocks on a GPU that it has kernels for, autograd for others.
std::unique_ptr<BlockEngine> block_engine(const config::Train& train, const EngineOptions& options);

}  // namespace vitrail::nn
