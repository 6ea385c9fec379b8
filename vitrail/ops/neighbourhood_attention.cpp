#include "vitrail/ops/neighbourhood_attention.h"

#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/norm.h"

namespace vitrail::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const Neighbourhood& where) {
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(1) == k.size(1) && q.size(3) == k.size(3) &&
                    q.size(2) == where.groups() && k.size(2) == where.cells();
  VT_CHECK(fits,
           "[neighbourhood] q must be [B, N, {}, E] and k and v [B, N, {}, E] but got [{}], [{}] "
           "and [{}]",
           where.groups(), where.cells(), fmt::join(q.sizes(), ", "), fmt::join(k.sizes(), ", "),
           fmt::join(v.sizes(), ", "));
}

/// [B, N, T, E] -> [B N, T, E] in the statistics type.
at::Tensor rows_of(const at::Tensor& x) {
  return x.reshape({-1, x.size(2), x.size(3)}).to(statistics_type(x.scalar_type())).contiguous();
}

/// Sums between groups and cells along the lists of a neighbourhood.
class Gathers {
 public:
  explicit Gathers(const Neighbourhood& where)
      : where_(where), group_LM_(where.seen_LM.floor_divide(where.window())) {
    group_LM_.clamp_max_(where.groups() - 1);  // of entries that mean nothing, whose weight is 0
  }

  /// [M, G, W]: row of each group times row of each cell that it sees.
  at::Tensor dots(const at::Tensor& of_groups, const at::Tensor& of_cells) const {
    at::Tensor found =
        at::empty({of_groups.size(0), where_.groups(), where_.window()}, of_groups.options());
    for (int64_t w = 0; w < where_.window(); ++w)
      found.select(2, w).copy_((of_groups * seen(of_cells, w)).sum(-1));
    return found;
  }
  /// [M, G, E]: sum over the cells that a group sees of weight times row.
  at::Tensor over_cells(const at::Tensor& weight, const at::Tensor& of_cells) const {
    at::Tensor sum = weight.select(2, 0).unsqueeze(-1) * seen(of_cells, 0);
    for (int64_t w = 1; w < where_.window(); ++w)
      sum.addcmul_(weight.select(2, w).unsqueeze(-1), seen(of_cells, w));
    return sum;
  }
  /// [M, L, E]: sum over the groups that see a cell of weight times row.
  at::Tensor over_groups(const at::Tensor& weight, const at::Tensor& of_groups) const {
    const at::Tensor padded = at::constant_pad_nd(weight.flatten(1), {0, 1});
    at::Tensor sum =
        at::zeros({weight.size(0), where_.cells(), of_groups.size(2)}, of_groups.options());
    for (int64_t m = 0; m < where_.seen_LM.size(1); ++m)
      sum.addcmul_(padded.index_select(1, where_.seen_LM.select(1, m)).unsqueeze(-1),
                   of_groups.index_select(1, group_LM_.select(1, m)));
    return sum;
  }
  /// [M, L]: sum over the groups that see a cell of weight.
  at::Tensor columns(const at::Tensor& weight) const {
    const at::Tensor padded = at::constant_pad_nd(weight.flatten(1), {0, 1});
    at::Tensor sum = at::zeros({weight.size(0), where_.cells()}, weight.options());
    for (int64_t m = 0; m < where_.seen_LM.size(1); ++m)
      sum.add_(padded.index_select(1, where_.seen_LM.select(1, m)));
    return sum;
  }
  /// x [M, L, ...] of the cells that groups see.
  at::Tensor seen(const at::Tensor& x, int64_t w) const {
    return x.index_select(1, where_.cells_GW.select(1, w));
  }
  /// x [M, L] -> [M, G, W].
  at::Tensor seen_all(const at::Tensor& x) const {
    return x.index_select(1, where_.cells_GW.flatten())
        .view({x.size(0), where_.groups(), where_.window()});
  }

 private:
  Neighbourhood where_;
  at::Tensor group_LM_;
};

struct NeighbourhoodFunction : torch::autograd::Function<NeighbourhoodFunction> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& cells_GW,
                            const at::Tensor& seen_LM, double eps) {
    const Gathers gathers({cells_GW, seen_LM});
    const at::Tensor a = at::softmax(gathers.dots(rows_of(q), rows_of(k)), -1);
    const at::Tensor weight = (gathers.columns(a) + eps).reciprocal();
    const at::Tensor out = gathers.over_cells(a, rows_of(v) * weight.unsqueeze(-1));
    node->save_for_backward({q, k, v, a, weight, cells_GW, seen_LM});
    return out.view(q.sizes()).to(q.scalar_type());
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const variable_list kept = node->get_saved_variables();
    const at::Tensor &q = kept[0], &k = kept[1], &v = kept[2], &a = kept[3];
    const Gathers gathers({kept[5], kept[6]});
    const at::Tensor weight = kept[4].unsqueeze(-1), values = rows_of(v);
    const at::Tensor dout = rows_of(gradients[0]);
    // A cell gives v / (column + eps); its column is in every weight of that cell.
    const at::Tensor dv = gathers.over_groups(a, dout).mul_(weight);
    const at::Tensor dcolumns = ((dv * values).sum(-1) * kept[4]).neg();
    at::Tensor da = gathers.dots(dout, values * weight).add_(gathers.seen_all(dcolumns));
    const at::Tensor ds = da.sub_((da * a).sum(-1, /*keepdim=*/true)).mul_(a);
    const auto like = [](const at::Tensor& gradient, const at::Tensor& x) {
      return gradient.view(x.sizes()).to(x.scalar_type());
    };
    return {like(gathers.over_cells(ds, rows_of(k)), q),
            like(gathers.over_groups(ds, rows_of(q)), k),
            like(dv, v),
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor neighbourhood_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const Neighbourhood& where, double eps) {
  check(q, k, v, where);
  return NeighbourhoodFunction::apply(q, k, v, where.cells_GW, where.seen_LM, eps);
}

at::Tensor plain_neighbourhood_attention(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const Neighbourhood& where,
                                         GroupingMaps* maps, double eps) {
  check(q, k, v, where);
  const at::ScalarType wide = statistics_type(q.scalar_type());
  const at::Tensor hidden_GL =
      at::ones({where.groups(), where.cells()}, q.options().dtype(at::kBool))
          .scatter(1, where.cells_GW, false);
  const at::Tensor scores = at::matmul(q.to(wide), k.to(wide).transpose(-2, -1))
                                .masked_fill(hidden_GL, -std::numeric_limits<double>::infinity());
  const at::Tensor assignment = at::softmax(scores, -1);
  const at::Tensor share = assignment / (assignment.sum(-2, /*keepdim=*/true) + eps);
  if (maps) *maps = {share, assignment};
  return at::matmul(share, v.to(wide)).to(q.scalar_type());
}

}  // namespace vitrail::ops
