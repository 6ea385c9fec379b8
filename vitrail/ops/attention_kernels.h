#pragma once
/// Which kernel computes attention of a shape on a GPU: made, timed and kept at first use.

#include "vitrail/kernels/attention.h"
#include "vitrail/ops/packed_attention.h"

namespace vitrail::ops {

/// Null where none can. The first call of a shape may build kernels and wait for the device, so it must not be recorded
/// as a CUDA graph.
kernels::AttentionKernel* attention_kernel(const Heads& heads, const PackedOptions& options);

/// Launches on the current stream.
PackedResult run_attention(kernels::AttentionKernel& kernel, const Heads& heads,
                           const PackedOptions& options);
void run_attention_backward(kernels::AttentionKernel& kernel, const at::Tensor& dout_BLF,
                            const Heads& heads, const PackedResult& forward,
                            const PackedOptions& options, const Heads& gradients);

}  // namespace vitrail::ops
