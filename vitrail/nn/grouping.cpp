#include "vitrail/nn/grouping.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/max_pool3d.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/neighbourhood_attention.h"
#include "vitrail/ops/rotary.h"

namespace vitrail::nn {
namespace {

/// Of the layers' own norms; those of transformer blocks are the recipe's.
constexpr NormOptions kNorm{NormKind::layernorm, 1e-5};

std::vector<int64_t> each(int64_t axes, int64_t value) { return std::vector<int64_t>(axes, value); }

/// Convolution whose owner calls it.
class StridedConv : public Module {
 public:
  explicit StridedConv(const GroupingOptions& options) {
    std::vector<int64_t> shape{options.width, options.width};
    shape.insert(shape.end(), options.axes, options.kernel);
    weight = register_parameter("weight", shape);
    bias = register_parameter("bias", {options.width});
  }
  at::Tensor weight, bias;
};

int64_t padding_of(int64_t kernel) { return (kernel - 1) / 2; }

/// Tokens as a map [B, D, sides...], whose memory stays as it is.
at::Tensor as_map(const at::Tensor& x_BLD, const std::vector<int64_t>& sides) {
  std::vector<int64_t> shape{x_BLD.size(0)};
  shape.insert(shape.end(), sides.begin(), sides.end());
  shape.push_back(x_BLD.size(2));
  return x_BLD.reshape(shape).movedim(-1, 1);
}

}  // namespace

CellGrid grouped(const CellGrid& cells, int64_t kernel, int64_t stride) {
  CellGrid groups = cells;
  for (size_t axis = 0; axis < cells.sides.size(); ++axis) {
    const int64_t room = cells.sides[axis] + 2 * padding_of(kernel) - kernel;
    groups.sides[axis] = room < 0 ? 0 : room / stride + 1;
    groups.spacing[axis] *= static_cast<double>(stride);
  }
  return groups;
}

at::Tensor valid_groups(const at::Tensor& valid_BL, const CellGrid& cells, int64_t kernel,
                        int64_t stride) {
  const auto axes = static_cast<int64_t>(cells.sides.size());
  std::vector<int64_t> shape{valid_BL.size(0), 1};
  shape.insert(shape.end(), cells.sides.begin(), cells.sides.end());
  const at::Tensor map = valid_BL.to(at::kFloat).view(shape);
  const auto edge = each(axes, kernel), step = each(axes, stride),
             padding = each(axes, padding_of(kernel));
  // Padding of a pool is minus infinity, which no comparison takes for valid.
  const at::Tensor pooled = axes == 2 ? at::max_pool2d(map, edge, step, padding)
                                      : at::max_pool3d(map, edge, step, padding);
  return pooled.gt(0.5).flatten(1);
}

Grouping::Grouping(const GroupingOptions& options) : options_(options) {
  const int64_t D = options.width;
  VT_CHECK(options.iterations >= 1 && options.kernel >= 1 && options.stride >= 1,
           "[grouping] iterations, kernel and stride must be positive but are {}, {} and {}",
           options.iterations, options.kernel, options.stride);
  const auto conv = register_module("conv", std::make_shared<StridedConv>(options));
  conv_weight_ = conv->weight;
  conv_bias_ = conv->bias;
  norm1_ = register_module("norm1", std::make_shared<Norm>(D, kNorm));
  kv_ = register_module("kv", std::make_shared<Linear>(D, 2 * D));
  q_ = register_module("q", std::make_shared<Linear>(D, D));
  temperature_ = register_parameter("temperature", {1});
  if (Rose::turned_heads(options.rose) > 0)
    rose_ = register_module("rose", std::make_shared<Rose>(options.rose));
  norm2_ = register_module("norm2", std::make_shared<Norm>(D, kNorm));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(options.mlp));
  norm3_ = register_module("norm3", std::make_shared<Norm>(D, kNorm));
  mask_embedding_ = register_parameter("mask_embedding", {D});
}

at::Tensor Grouping::convolved(const at::Tensor& x_BLD, const CellGrid& cells) const {
  const int64_t k = options_.axes;
  return at::convolution(as_map(x_BLD, cells.sides), conv_weight_, conv_bias_,
                         each(k, options_.stride), each(k, padding_of(options_.kernel)), each(k, 1),
                         /*transposed=*/false, each(k, 0), /*groups=*/1)
      .flatten(2)
      .transpose(1, 2);
}

at::Tensor Grouping::heads(const at::Tensor& x_BLD) const {
  return x_BLD.unflatten(-1, {options_.num_heads, -1}).transpose(1, 2);
}

const ops::Neighbourhood& Grouping::around(const CellGrid& cells, at::Device device) const {
  ops::Neighbourhood& known = around_[cells.sides];
  if (!known.cells_GW.defined())
    known =
        ops::make_neighbourhood(cells.sides, grouped(cells, options_.kernel, options_.stride).sides,
                                options_.stride, options_.neighbourhood);
  if (known.cells_GW.device() != device)
    known = {known.cells_GW.to(device), known.seen_LM.to(device)};
  return known;
}

at::Tensor Grouping::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const CellGrid& cells, ops::GroupingMaps* maps) const {
  if (options_.sparse) {
    const ops::Neighbourhood& where = around(cells, q.device());
    return maps ? ops::plain_neighbourhood_attention(q, k, v, where, maps)
                : ops::neighbourhood_attention(q, k, v, where);
  }
  return maps || options_.stores_maps ? ops::plain_grouping_attention(q, k, v, maps)
                                      : ops::grouping_attention(q, k, v, options_.workspace_bytes);
}

at::Tensor Grouping::forward(const at::Tensor& given_BLD, const CellGrid& cells,
                             const at::Tensor& valid_BL, const Draws& draws,
                             ops::GroupingMaps* maps) const {
  const int64_t B = given_BLD.size(0), L = given_BLD.size(1), D = options_.width;
  VT_CHECK(L == cells.cells(), "[grouping] a grid of {} has {} cells but got {} tokens",
           fmt::join(cells.sides, "x"), cells.cells(), L);
  at::Tensor x_BLD = given_BLD;
  if (valid_BL.defined())
    x_BLD = at::where(valid_BL.unsqueeze(-1), x_BLD, mask_embedding_.to(x_BLD.scalar_type()));
  const CellGrid groups = grouped(cells, options_.kernel, options_.stride);
  at::Tensor y_BGD = norm1_->forward(convolved(x_BLD, cells));
  const std::vector<at::Tensor> kv = kv_->forward(x_BLD).chunk(2, -1);
  at::Tensor k = heads(kv[0]);
  const at::Tensor v =
      options_.mixes_heads ? kv[1].contiguous().view({B, options_.num_heads, L, -1}) : heads(kv[1]);
  ops::Rotary of_groups;
  if (rose_) {
    k = ops::rotate(k, rose_->tables(cells, x_BLD));
    of_groups = rose_->tables(groups, x_BLD);
  }
  k = k * temperature_;
  for (int64_t i = 0; i < options_.iterations; ++i) {
    at::Tensor q = heads(q_->forward(y_BGD));
    if (rose_) q = ops::rotate(q, of_groups);
    const bool last = i + 1 == options_.iterations;
    const at::Tensor taken = attend(q, k, v, cells, last ? maps : nullptr);
    const at::Tensor merged = options_.mixes_heads ? taken.contiguous().view({B, -1, D})
                                                   : taken.transpose(1, 2).reshape({B, -1, D});
    y_BGD = y_BGD + norm2_->forward(merged);
    y_BGD = y_BGD + norm3_->forward(mlp_->forward(y_BGD, draws));
  }
  return y_BGD;
}

double Grouping::multiply_adds(const CellGrid& cells) const {
  const CellGrid groups = grouped(cells, options_.kernel, options_.stride);
  const auto D = static_cast<double>(options_.width), L = static_cast<double>(cells.cells()),
             G = static_cast<double>(groups.cells());
  double seen = 1.0;
  for (const int64_t side : cells.sides)
    seen *= static_cast<double>(options_.sparse ? std::min(side, options_.neighbourhood) : side);
  const double refine =
      G * (D * D + 2.0 * D * static_cast<double>(options_.mlp.hidden) + 2.0 * seen * D);
  return static_cast<double>(conv_weight_.numel()) * G + 2.0 * L * D * D +
         static_cast<double>(options_.iterations) * refine;
}

}  // namespace vitrail::nn
