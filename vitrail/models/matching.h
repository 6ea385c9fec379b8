#pragma once
/// Assignment of least cost.

#include <cstdint>
#include <span>
#include <vector>

namespace vitrail::models {

/// One column for each row of a cost matrix so that the sum of costs is least; exact, any shape.
///
/// Shapes   cost [rows, columns], row after row. With more rows than columns the rows left over get -1.
/// Paper    Kuhn 1955 in the form of shortest augmenting paths: Jonker & Volgenant 1987.
/// Time     O(n^2 m) for n = min(rows, columns), m = max(rows, columns); memory O(n + m).
/// throws   Error for a size that does not fit, or a cost that is NaN or infinite.
std::vector<int64_t> assign(std::span<const double> cost, int64_t rows, int64_t columns);

}  // namespace vitrail::models
