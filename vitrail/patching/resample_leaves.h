#pragma once
/// One leaf a call on the CPU: the four maps between its pixels and its patch, and its labels.
///
/// Threads  one LeafResampler a thread: it keeps weights and scratch memory between calls.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "vitrail/patching/leaf_boxes.h"
#include "vitrail/patching/resample_plan.h"

namespace vitrail::patching {

/// Weights of all results of an axis: result i is the sum over j of weight[begin[i] + j] * value[first[i] + j],
/// begin[i] + j < begin[i + 1].
struct AxisTable {
  std::vector<int32_t> first, begin;
  std::vector<double> weight;
};

AxisTable axis_table(const Axis& axis);
/// Of the adjoint: axis.to values in, axis.from out.
AxisTable adjoint_table(const Axis& axis);

class LeafResampler {
 public:
  LeafResampler(const LeafMap& map, int64_t channels, int64_t patch_size)
      : map_(map), channels_(channels), patch_size_(patch_size) {}

  /// All channels of a leaf: image [C, sides...] and tokens [C, L, P^k], of which map.to_patch() tells the one read.
  /// The tokens of padding become 0; pixels outside the leaf are not touched.
  void operator()(const LeafBoxes& boxes, int64_t leaf, const float* in, float* out);

  /// A block of three axes inside a larger array; the last axis is contiguous.
  template <class Value>
  struct Block {
    Value* data;
    std::array<int64_t, 3> size;
    int64_t plane, row;  // strides

    Value* at(int64_t z, int64_t y) const { return data + z * plane + y * row; }
  };

 private:
  bool averages() const { return map_.method == Resample::area && !map_.is_adjoint; }
  /// `next`: what will be read after `in`, or `in` itself.
  void run(const Block<const float>& in, const Block<const float>& next, const Block<float>& out,
           const std::array<int64_t, 3>& leaf_size);
  const AxisTable& table(int64_t leaf_side);

  LeafMap map_;
  int64_t channels_, patch_size_;
  std::vector<std::unique_ptr<AxisTable>> tables_;  // by the leaf's side
  std::vector<double> scratch_[2];
};

/// serialise_labels and serialise_shares (resample.h) of one leaf: labels of the image -> out, of all leaves.
void label_leaf(LabelRule rule, int64_t patch_size, const LeafBoxes& boxes, int64_t leaf,
                const int64_t* labels, int64_t* out);
void share_leaf(int64_t classes, int64_t patch_size, const LeafBoxes& boxes, int64_t leaf,
                const int64_t* labels, float* out);

}  // namespace vitrail::patching
