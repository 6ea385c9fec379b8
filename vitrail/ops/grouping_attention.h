#pragma once
/// Spatial grouping attention: groups choose among the cells of a grid, and every cell is shared out among the groups.
///
///   A = softmax over the cells of q k^T;  S = A / (sum of A over the groups + eps);  result = S v
/// There is no 1 / sqrt(E): whoever makes k puts a temperature into it.
/// Shapes   B batch, N heads, G groups, L cells, E head width; q and the result [B, N, G, E], k and v [B, N, L, E].
/// Types    softmax and sums in fp32 (fp64 for fp64) whatever the type of q, k and v, which the result has too; on CUDA
///          bf16 products read bf16.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// Keeps a cell that no group wants finite.
constexpr double kGroupingEps = 1e-8;

/// What groups took: S, whose columns sum to 1, and A, whose rows do; [B, N, G, L].
struct GroupingMaps {
  at::Tensor share, assignment;
};

/// The formula written out, the reference: both maps are made and kept for backward. They are handed out where `maps` is
/// given.
at::Tensor plain_grouping_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    GroupingMaps* maps = nullptr, double eps = kGroupingEps);

/// The same without ever holding a map.
///
/// Forward   by pieces of rows (groups): the sums of each row, of which the sums of the columns are made, then the row
///           again times v / (column sum + eps), which is plain attention.
/// Backward  by the same pieces, twice: the gradient of v first, because that of the column sums follows from it and
///           enters every row; then those of q and k.
/// Memory    q, k, v, the result, a number for each row and column, and a workspace: as many rows as fit into
///           `workspace_bytes`, one at the least (two in backward).
at::Tensor grouping_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              int64_t workspace_bytes, double eps = kGroupingEps);

}  // namespace vitrail::ops
