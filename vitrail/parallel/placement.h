#pragma once
/// Which part of a parameter a tensor-parallel rank holds.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::parallel {

enum class Split {
  none,     // every rank holds all of it
  rows,     // an equal part of axis 0 (of each section of it)
  columns,  // an equal part of axis 1
  owner     // one rank holds all of it, the others nothing
};

/// Shapes     a local part keeps the order of the whole: row-major, sections one after another.
struct Placement {
  Split split = Split::none;
  int parts = 1, part = 0;  // ranks that divide it, this one's place among them
  /// rows: lengths of the pieces of axis 0 that are divided each for itself (q, k and v of a qkv layer); empty = one.
  std::vector<int64_t> sections;
  int owner = 0;  // owner: who holds it
  /// Held by all, but each rank's gradient is only of its own tokens or heads: they must be added.
  bool partial = false;
};

/// A box in a whole tensor: first index and extent of each axis.
struct Box {
  std::vector<int64_t> start, shape;
  int64_t count() const;
};

/// The boxes that a rank holds, in the order in which they follow each other along axis 0 of its local tensor; empty
/// when it holds nothing. A parameter without axes is one box without axes.
/// throws ConfigError when the parts do not divide the axis (or a section).
std::vector<Box> boxes(const std::vector<int64_t>& whole_shape, const Placement& placement);
std::vector<int64_t> local_shape(const std::vector<int64_t>& whole_shape,
                                 const Placement& placement);
/// This rank's part of a whole tensor, contiguous (a copy unless it is everything).
at::Tensor local_part(const at::Tensor& whole, const Placement& placement);

/// The placement of each parameter, by its full name and whole shape.
using PlacementTable =
    std::function<Placement(const std::string& name, const std::vector<int64_t>& whole_shape)>;

}  // namespace vitrail::parallel
