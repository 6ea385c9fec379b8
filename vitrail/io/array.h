#pragma once
/// An n-dimensional array in a file or container, of which boxes can be read without the rest.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"

namespace vitrail::io {

/// Implementations: npy and npz, raw, TIFF, zarr, N5.
/// Threads  const functions are called from many threads at once.
class ArrayFile {
 public:
  virtual ~ArrayFile() = default;

  virtual const std::vector<int64_t>& shape() const = 0;
  virtual core::DType dtype() const = 0;
  /// A letter for each axis ("czyx") where the format names them; else empty.
  virtual std::string axes() const { return ""; }
  /// Sides of the pieces in which the file keeps its values; empty = in one piece.
  virtual std::vector<int64_t> chunk_shape() const { return {}; }

  /// Writes the box that begins at `origin` and has `sides` to `out`: row-major, dtype() in the
  /// machine's byte order, product(sides) * size_bytes(dtype()) bytes.
  /// The box lies inside the array. throws DataError naming the file.
  virtual void read(std::span<const int64_t> origin, std::span<const int64_t> sides,
                    std::byte* out) const = 0;
};

}  // namespace vitrail::io
