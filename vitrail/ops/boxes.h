#pragma once
/// Boxes as tensors: forms, areas, overlaps. Everything is differentiable.
///
/// Forms    corners: x0, y0, x1, y1; centres: centre x, centre y, width, height; both in the same unit.
/// Shapes   [..., 4]; functions of two tensors of boxes broadcast their leading axes, so that all pairs of [N, 4] and
///          [M, 4] are f(a.unsqueeze(-2), b.unsqueeze(-3)), [N, M].

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

at::Tensor centres_to_corners(const at::Tensor& boxes);
at::Tensor corners_to_centres(const at::Tensor& boxes);

/// Of corners; a box whose corners are in the wrong order has the area 0.
at::Tensor box_area(const at::Tensor& corners);

/// Intersection over union of corners, in [0, 1]; 0 for two boxes without area.
at::Tensor box_iou(const at::Tensor& a, const at::Tensor& b);

/// Generalised intersection over union of corners, in [-1, 1]: iou - (hull - union) / hull with the smallest box around
/// both as hull; -1 + iou's limit of 0 where the hull has no area.
/// Paper    Rezatofighi et al. 2019, arXiv:1902.09630.
at::Tensor generalised_iou(const at::Tensor& a, const at::Tensor& b);

}  // namespace vitrail::ops
