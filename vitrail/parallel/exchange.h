#pragma once
/// Differentiable exchanges of tensors between the ranks of a group, and the glue between tensors and buffers.
///
/// Every rank of the group calls them with the same shapes; in backward too. They run on the device's current stream.
/// Shapes    R ranks.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"

namespace vitrail::parallel {

/// The memory of a contiguous tensor.
comm::Buffer buffer_of(const at::Tensor& tensor);

/// `count` slices of axis `dim` from `start` on; zeros where those lie past the end. The axis keeps its other neighbours.
at::Tensor padded_narrow(const at::Tensor& x, int64_t dim, int64_t start, int64_t count);

/// x [B, T, ...] of every rank -> [B, R T, ...] cut to `whole`. Not differentiable.
at::Tensor gather_runs(const at::Tensor& x, int64_t whole, comm::Communicator& group);

/// x [R, ...] -> [R, ...]: slice i goes to rank i, slice i of the result comes from rank i. Its own derivative.
at::Tensor all_to_all(const at::Tensor& x, comm::Communicator& group);

/// x itself; its gradient is the sum of all ranks' gradients times `scale`.
at::Tensor sum_gradients(const at::Tensor& x, comm::Communicator& group, double scale);

}  // namespace vitrail::parallel
