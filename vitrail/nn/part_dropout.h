#pragma once
/// Dropout of activations that may be a part of the whole: some of the tokens, some of the channels. Every element is
/// drawn for by its place in the whole.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/context.h"
#include "vitrail/nn/linear.h"

namespace vitrail::nn {

/// x [B, T, F], or [B, ...] when it is whole; the identity outside training. `channels`: which part of the last axis.
at::Tensor part_dropout(const at::Tensor& x, double rate, const Draws& draws, uint16_t layer,
                        const TokenWindow& tokens, Part channels);

/// The window of y [B, G, ...], which holds the runs of several ranks, one of them `tokens`, that lie next to each other.
TokenWindow gathered_window(const TokenWindow& tokens, const at::Tensor& y);

}  // namespace vitrail::nn
