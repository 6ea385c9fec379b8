#pragma once
/// Runs of elements inside boxes of a whole tensor: what a rank keeps, what a file holds, and what two of them share.

#include <cstdint>
#include <functional>
#include <vector>

#include "vitrail/parallel/placement.h"

namespace vitrail::parallel {

/// Elements [start, start + count) of a box, counted row-major inside the box.
struct BoxRange {
  Box box;
  int64_t start = 0, count = 0;
};

Box whole_box(const std::vector<int64_t>& shape);
/// True when the box is all of a tensor of this shape.
bool is_whole(const Box& box, const std::vector<int64_t>& shape);

/// Elements [start, start + count) of a local tensor in which `held` follow each other along axis 0 (placement.h).
std::vector<BoxRange> split_run(const std::vector<Box>& held, int64_t start, int64_t count);

/// Every run of elements that lie in both ranges and follow one another in both, in rising order:
/// visit(first of the run in `a`, first in `b`, count), both counted from the range's start.
/// Needs     boxes of the same whole tensor; products of shapes that do not overflow.
void for_each_common_run(
    const BoxRange& a, const BoxRange& b,
    const std::function<void(int64_t in_a, int64_t in_b, int64_t count)>& visit);

}  // namespace vitrail::parallel
