#pragma once
/// IDX: one array of plain numbers, as MNIST is published.
///
/// Format   two zero bytes, a byte for the type (u8 i8 i16 i32 f32 f64), a byte for the number of
///          axes, the axes as 32-bit numbers, the values; all big-endian.
/// Errors   DataError naming the file. Nothing is allocated for the values.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vitrail/core/dtype.h"

namespace vitrail::io {

/// A view of a checked file: it has as many values as its axes say.
struct IdxArray {
  core::DType dtype = core::DType::u8;
  std::vector<int64_t> shape;         // at most eight axes
  std::span<const std::byte> values;  // big-endian

  /// Value number i of the flat array; 0 <= i < product of shape.
  double at(int64_t i) const;
};

/// `file` must outlive what is returned.
IdxArray parse_idx(std::span<const std::byte> file, const std::string& name);

}  // namespace vitrail::io
