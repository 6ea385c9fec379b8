#pragma once
/// Bytes, edges and importance of a batch where it lies on a GPU; batch_edges.cpp calls them.
///
/// Needs    contiguous arrays on the stream's device; asynchronous on `stream` (a cudaStream_t), without
///          host synchronisation.
/// Equality the same numbers as edges.h and importance.h give (edges_pixel.h, edges_math.h).
/// throws   Error in a build without CUDA.

#include <cstdint>

#include "vitrail/patching/edges_math.h"

namespace vitrail::patching {

/// options [batch, 3] = draw_edges(seed, epoch, sample_ids[b]).
void draw_edge_options(const int64_t* sample_ids, int64_t batch, uint64_t seed, int64_t epoch,
                       int32_t* options, void* stream);

/// Floats to bytes.
struct ByteBatch {
  const float* image = nullptr;  // [batch, channels, pixels]
  const float* range = nullptr;  // [batch, channels, 2] black and white; null = least and largest
  int64_t batch = 0, channels = 1, pixels = 0;
  uint32_t* limits = nullptr;  // [batch, channels, 2], work space: zeros
  Scale* scales = nullptr;     // [batch, channels], work space
  uint8_t* bytes = nullptr;    // [batch, channels, pixels]
};
void to_bytes(const ByteBatch& batch, void* stream);

/// Bytes to maps. Fewer than 2^31 pixels a sample.
struct EdgeBatch {
  const uint8_t* bytes = nullptr;    // [batch, channels, sides]
  const int32_t* options = nullptr;  // [batch, 3]: blur, low, high
  int64_t batch = 0, channels = 1;
  int32_t sides[3] = {1, 1, 1};  // an image has one plane
  bool is_volume = false;
  uint8_t* blurred = nullptr;  // like bytes; work space of edges and gradient
  int32_t* norms = nullptr;    // [batch, sides], work space of edges, in the end the union-find's
  uint8_t* states = nullptr;   // [batch, sides], work space of edges
  uint8_t* map = nullptr;      // [batch, sides]; of edges it holds the directions meanwhile
};
void edge_maps(const EdgeBatch& batch, void* stream);
void gradient_maps(const EdgeBatch& batch, void* stream);
void variance_maps(const EdgeBatch& batch, void* stream);

}  // namespace vitrail::patching
