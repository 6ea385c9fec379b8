#pragma once
/// Spatial grouping attention (grouping_attention.h) whose groups look only at the cells around them.
///
/// Shapes   as there, with W cells for each group; maps are [B, N, G, W].
/// Time     O(B G W N E). Memory: q, k, v and the result in fp32, B N G W numbers, and a few tensors of the size of q or
///          of k.
/// Every sum is a gather over a fixed list (neighbourhood.h), so results and gradients do not depend on the order of
/// threads.

#include "vitrail/ops/grouping_attention.h"
#include "vitrail/ops/neighbourhood.h"

namespace vitrail::ops {

/// The formula of plain_grouping_attention with every other cell outside each softmax.
at::Tensor neighbourhood_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const Neighbourhood& where, double eps = kGroupingEps);

/// The same, written out with whole maps [B, N, G, L]; the reference.
at::Tensor plain_neighbourhood_attention(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const Neighbourhood& where,
                                         GroupingMaps* maps = nullptr, double eps = kGroupingEps);

}  // namespace vitrail::ops
