#pragma once
/// Convolutions of maps whose first space axis is divided over ranks: each works on a slab and borrows the rows next to it.
///
/// Slabs     rank r of R holds rows [r H / R, (r + 1) H / R) of H; R divides H, and a slab has at least as many rows as are
///           borrowed.
/// Gradients enter_slab and leave_slab scale as the border of tokens does (token_border.h), so gradients of weights used
///           between them are right once they are averaged over the ranks. All functions are differentiable; every rank
///           calls them with the same shapes, in backward too.
/// Shapes    [B, channels, rows, sides...]: B batch, any number of space axes.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"

namespace vitrail::parallel {

/// The whole map -> this rank's rows.
/// throws ConfigError when the ranks do not divide the rows.
at::Tensor enter_slab(const at::Tensor& x, comm::Communicator& group);
/// This rank's rows -> the whole map.
at::Tensor leave_slab(const at::Tensor& x, comm::Communicator& group);

/// x with `width` rows of the neighbours on either side; zeros beyond the ends of the map.
at::Tensor with_halo(const at::Tensor& x, int64_t width, comm::Communicator& group);

/// This rank's rows of the convolution of the whole map: stride 1, sides kept, weight [out, in, K...] with K odd, bias [out]
/// or undefined.
at::Tensor slab_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     comm::Communicator& group);

/// nn::instance_norm of the whole map, for this rank's rows. (A transposed convolution whose kernel is its stride needs
/// nothing of the neighbours.)
at::Tensor slab_instance_norm(const at::Tensor& x, comm::Communicator& group);

}  // namespace vitrail::parallel
