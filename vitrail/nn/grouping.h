#pragma once
/// One grouping layer: the cells of a grid are gathered into fewer groups, which attend to all cells (or to those around
/// them) and share them out among themselves.
///
///   y = norm1(strided convolution of x)
///   k, v = kv(x);  k = temperature * turn(k)
///   iterations times:  q = turn(q(y));  y = y + norm2(grouping attention of q, k, v);  y = y + norm3(mlp(y))
/// Groups of an axis of n cells: floor((n + 2 floor((kernel - 1) / 2) - kernel) / stride) + 1; group g stands at cell
/// stride * g, so its spacing is that many times as wide.
/// Masks    true = a valid cell. What is not valid reads as the learned mask_embedding instead. A group is valid when any
///          cell under its convolution is.
/// Shapes   B batch, L cells, G groups, D width, N heads.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/linear.h"
#include "vitrail/nn/mlp.h"
#include "vitrail/nn/norm.h"
#include "vitrail/nn/rose.h"
#include "vitrail/ops/grouping_attention.h"
#include "vitrail/ops/neighbourhood.h"

namespace vitrail::nn {

struct GroupingOptions {
  int64_t axes = 2;
  int64_t width = 768;
  int64_t num_heads = 12;
  int64_t kernel = 7;
  int64_t stride = 3;
  int64_t iterations = 3;
  bool sparse = false;
  int64_t neighbourhood = 3;  // sparse: cells that a group sees along an axis
  bool mixes_heads = false;   // v and the result are viewed as heads without a transposition
  bool stores_maps = false;
  int64_t workspace_bytes = int64_t{256} << 20;
  MlpOptions mlp;
  RoseOptions rose;  // ratio 0: no positions
};

/// The grid of groups over `cells`; a side of 0 when the kernel is wider than the padded axis.
CellGrid grouped(const CellGrid& cells, int64_t kernel, int64_t stride);

/// Which of its groups are valid: valid_BL bool -> [B, G].
at::Tensor valid_groups(const at::Tensor& valid_BL, const CellGrid& cells, int64_t kernel,
                        int64_t stride);

/// Names    conv.weight [D, D, kernel...], conv.bias, norm1, kv, q, temperature [1], rose.*, norm2, mlp.*, norm3,
///          mask_embedding [D].
class Grouping : public Module {
 public:
  explicit Grouping(const GroupingOptions& options);
  /// x_BLD of `cells`, valid_BL bool or undefined = all -> [B, G, D]. `maps`: whole maps [B, N, G, L] of the last
  /// iteration are made and handed out.
  at::Tensor forward(const at::Tensor& x_BLD, const CellGrid& cells, const at::Tensor& valid_BL,
                     const Draws& draws, ops::GroupingMaps* maps = nullptr) const;
  const GroupingOptions& options() const { return options_; }
  /// Multiply-adds of one sample: convolution, projections, attention, MLP.
  double multiply_adds(const CellGrid& cells) const;

 private:
  at::Tensor convolved(const at::Tensor& x_BLD, const CellGrid& cells) const;
  at::Tensor heads(const at::Tensor& x_BLD) const;
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const CellGrid& cells, ops::GroupingMaps* maps) const;
  const ops::Neighbourhood& around(const CellGrid& cells, at::Device device) const;

  GroupingOptions options_;
  std::shared_ptr<Module> conv_;
  at::Tensor conv_weight_, conv_bias_, temperature_, mask_embedding_;
  std::shared_ptr<Norm> norm1_, norm2_, norm3_;
  std::shared_ptr<Linear> kv_, q_;
  std::shared_ptr<Rose> rose_;
  std::shared_ptr<Mlp> mlp_;
  mutable std::map<std::vector<int64_t>, ops::Neighbourhood> around_;  // by sides, a cache
};

}  // namespace vitrail::nn
