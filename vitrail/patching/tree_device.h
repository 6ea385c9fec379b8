#pragma once
/// The greedy division of a batch on a GPU: the same leaves as tree_division.h, without a wait for the
/// device. All pointers are the device's but those in LevelScores' own array; kernels go to `stream`
/// (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

#include "vitrail/patching/tree_cells.h"

namespace vitrail::patching {

/// importance [B, sides...] -> levels[l] [B, cells of level l], l = 1 ... shape.top.
void sum_cells(const uint8_t* importance, int64_t batch, const TreeShape& shape,
               int64_t* const* levels, void* stream);

/// Scores to the keys of the leaves, [B, count], not in order; kNoKey fills each row up. `scratch` has
/// 2 * B * count numbers of any content. count is at least the number of cells of shape.top.
void divide_cells(const TreeShape& shape, const LevelScores<int64_t>& scores, int64_t batch,
                  int64_t count, int64_t value_floor, Order order, int64_t* scratch, int64_t* keys,
                  void* stream);
void divide_cells(const TreeShape& shape, const LevelScores<float>& scores, int64_t batch,
                  int64_t count, int64_t value_floor, Order order, int64_t* scratch, int64_t* keys,
                  void* stream);

/// keys [leaves] -> boxes [leaves, 2k].
void write_boxes(const TreeShape& shape, Order order, const int64_t* keys, int64_t leaves,
                 float* boxes, void* stream);

}  // namespace vitrail::patching
