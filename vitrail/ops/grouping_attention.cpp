#include "vitrail/ops/grouping_attention.h"

#include <algorithm>
#include <functional>

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
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

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(1) == k.size(1) && q.size(3) == k.size(3) &&
                    q.size(2) > 0 && k.size(2) > 0;
  VT_CHECK(fits,
           "[grouping] q must be [B, N, G, E] and k and v [B, N, L, E], none empty, but got [{}], "
           "[{}] and [{}]",
           fmt::join(q.sizes(), ", "), fmt::join(k.sizes(), ", "), fmt::join(v.sizes(), ", "));
}

/// Products of half types sum in fp32 on a GPU; elsewhere their operands are widened first.
bool multiplies_halves(const at::Tensor& x) {
  return x.is_cuda() && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf);
}

/// One map after another: [B, N, T, E] -> [B N, T, E], in the type that products read.
at::Tensor rows_of(const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(2), x.size(3)}).contiguous();
  return multiplies_halves(x) ? rows : rows.to(statistics_type(x.scalar_type()));
}

/// a b in the statistics type; `a` may come wider than `b`.
at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  const at::ScalarType type = b.scalar_type(), wide = statistics_type(type);
  if (type == wide) return at::bmm(a, b);
  return at::bmm(a.to(type), b, wide);
}

void product_into(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  if (b.scalar_type() == out.scalar_type())
    at::bmm_out(out, a, b);
  else
    at::bmm_out(out, a.to(b.scalar_type()), b, out.scalar_type());
}

/// How many maps and, of each, how many rows are held at once; more than one map only when all rows fit.
struct Piece {
  int64_t maps, rows;
};

Piece largest_piece(int64_t maps, int64_t rows, int64_t cells, int64_t buffers, int64_t value_bytes,
                    int64_t workspace_bytes) {
  const int64_t values = workspace_bytes / (buffers * value_bytes);
  const int64_t fit = std::clamp<int64_t>(values / cells, 1, rows);
  return {fit < rows ? 1 : std::clamp<int64_t>(values / (cells * rows), 1, maps), fit};
}

/// All maps of one call, [M, G, L] with M = B N, by pieces.
class Maps {
 public:
  Maps(const at::Tensor& q, const at::Tensor& k, int64_t buffers, int64_t workspace_bytes)
      : q_(rows_of(q)),
        k_(rows_of(k)),
        wide_(q_.options().dtype(statistics_type(q_.scalar_type()))),
        piece_(largest_piece(q_.size(0), q_.size(1), k_.size(1), buffers,
                             static_cast<int64_t>(wide_.dtype().itemsize()), workspace_bytes)) {}

  int64_t maps() const { return q_.size(0); }
  int64_t groups() const { return q_.size(1); }
  int64_t cells() const { return k_.size(1); }
  /// A map is one piece, so that what was made of it once is still there.
  bool is_whole() const { return piece_.rows == groups(); }
  at::TensorOptions wide() const { return wide_; }
  at::Tensor zeros(at::IntArrayRef shape) const { return at::zeros(shape, wide_); }
  at::Tensor empty(at::IntArrayRef shape) const { return at::empty(shape, wide_); }
  at::Tensor workspace() const { return empty({piece_.maps * piece_.rows * cells()}); }

  void for_each_block(const std::function<void(int64_t first, int64_t count)>& visit) const {
    for (int64_t first = 0; first < maps(); first += piece_.maps)
      visit(first, std::min(piece_.maps, maps() - first));
  }
  void for_each_run(const std::function<void(int64_t first, int64_t count)>& visit) const {
    for (int64_t first = 0; first < groups(); first += piece_.rows)
      visit(first, std::min(piece_.rows, groups() - first));
  }
  at::Tensor q(int64_t map, int64_t maps, int64_t row, int64_t rows) const {
    return q_.narrow(0, map, maps).narrow(1, row, rows);
  }
  at::Tensor k(int64_t map, int64_t maps) const { return k_.narrow(0, map, maps); }
  /// The part of a workspace that holds a piece.
  at::Tensor place(const at::Tensor& workspace, int64_t maps, int64_t rows) const {
    return workspace.narrow(0, 0, maps * rows * cells()).view({maps, rows, cells()});
  }
  /// q k^T of a piece.
  at::Tensor scores(const at::Tensor& workspace, int64_t map, int64_t maps, int64_t row,
                    int64_t rows) const {
    at::Tensor place_of = place(workspace, maps, rows);
    product_into(place_of, q(map, maps, row, rows), k(map, maps).transpose(1, 2));
    return place_of;
  }
  /// A of a piece, of which the logarithms of the row sums are known, [maps, rows, 1].
  at::Tensor assignment(const at::Tensor& workspace, const at::Tensor& logs, int64_t map,
                        int64_t maps, int64_t row, int64_t rows) const {
    return scores(workspace, map, maps, row, rows).sub_(logs).exp_();
  }

 private:
  at::Tensor q_, k_;
  at::TensorOptions wide_;
  Piece piece_;
};

struct Result {
  at::Tensor out;      // [M, G, E]
  at::Tensor logs;     // [M, G, 1]: logarithm of each row's sum of exponentials
  at::Tensor columns;  // [M, 1, L]: sum of each column of A
};

Result run_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   int64_t workspace_bytes, double eps) {
  const Maps maps(q, k, /*buffers=*/1, workspace_bytes);
  const at::Tensor values = rows_of(v), workspace = maps.workspace();
  Result result{maps.empty({maps.maps(), maps.groups(), v.size(3)}),
                maps.empty({maps.maps(), maps.groups(), 1}),
                maps.zeros({maps.maps(), 1, maps.cells()})};
  maps.for_each_block([&](int64_t m, int64_t count) {
    const at::Tensor logs = result.logs.narrow(0, m, count);
    at::Tensor columns = result.columns.narrow(0, m, count);
    at::Tensor piece, totals;
    maps.for_each_run([&](int64_t g, int64_t rows) {
      piece = maps.scores(workspace, m, count, g, rows);
      const at::Tensor tops = piece.amax(-1, /*keepdim=*/true);
      totals = piece.sub_(tops).exp_().sum(-1, /*keepdim=*/true);
      logs.narrow(1, g, rows).copy_(tops + totals.log());
      columns.add_(at::bmm(totals.reciprocal().transpose(1, 2), piece));
    });
    const at::Tensor shared =
        (values.narrow(0, m, count) / (columns + eps).transpose(1, 2)).to(values.scalar_type());
    maps.for_each_run([&](int64_t g, int64_t rows) {
      const at::Tensor a =
          maps.is_whole() ? piece.div_(totals)
                          : maps.assignment(workspace, logs.narrow(1, g, rows), m, count, g, rows);
      result.out.narrow(0, m, count).narrow(1, g, rows).copy_(product(a, shared));
    });
  });
  return result;
}

struct Gradients {
  at::Tensor q, k, v;  // [M, ., E], statistics type
};

Gradients run_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v, const Result& kept, int64_t workspace_bytes,
                       double eps) {
  const Maps maps(q, k, /*buffers=*/2, workspace_bytes);
  const at::Tensor values = rows_of(v), dvalues = rows_of(dout);
  const at::Tensor workspace = maps.workspace(), second = maps.workspace();
  const int64_t M = maps.maps(), G = maps.groups(), L = maps.cells(), E = v.size(3);
  Gradients found{maps.empty({M, G, E}), maps.zeros({M, L, E}), maps.zeros({M, L, E})};
  // dout . out of each row, the softmax's own correction as far as it comes through v.
  const at::Tensor own =
      (dvalues * kept.out).sum(-1, /*keepdim=*/true, statistics_type(dvalues.scalar_type()));
  maps.for_each_block([&](int64_t m, int64_t count) {
    const auto part = [&](const at::Tensor& x, int64_t g, int64_t rows) {
      return x.narrow(0, m, count).narrow(1, g, rows);
    };
    at::Tensor dv = found.v.narrow(0, m, count), dk = found.k.narrow(0, m, count), a;
    maps.for_each_run([&](int64_t g, int64_t rows) {
      a = maps.assignment(workspace, part(kept.logs, g, rows), m, count, g, rows);
      dv.add_(product(a.transpose(1, 2), part(dvalues, g, rows)));
    });
    // A cell gives v / (column + eps): dv so far is the gradient of that quotient.
    const at::Tensor weight = (kept.columns.narrow(0, m, count) + eps).reciprocal().transpose(1, 2);
    const at::Tensor v_here = values.narrow(0, m, count);
    dv.mul_(weight);
    const at::Tensor dcolumns =
        ((dv * v_here).sum(-1, /*keepdim=*/true) * weight).neg().transpose(1, 2);
    const at::Tensor shared_t = (v_here * weight).to(values.scalar_type()).transpose(1, 2);
    maps.for_each_run([&](int64_t g, int64_t rows) {
      if (!maps.is_whole())
        a = maps.assignment(workspace, part(kept.logs, g, rows), m, count, g, rows);
      at::Tensor ds = maps.place(second, count, rows);
      product_into(ds, part(dvalues, g, rows), shared_t);
      const at::Tensor mean = part(own, g, rows) + at::bmm(a, dcolumns.transpose(1, 2));
      ds.add_(dcolumns).sub_(mean).mul_(a);
      part(found.q, g, rows).copy_(product(ds, maps.k(m, count)));
      dk.add_(product(ds.transpose(1, 2), maps.q(m, count, g, rows)));
    });
  });
  return found;
}

struct GroupingFunction : torch::autograd::Function<GroupingFunction> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, int64_t workspace_bytes, double eps) {
    const Result result = run_forward(q, k, v, workspace_bytes, eps);
    const at::Tensor out = result.out.view(q.sizes()).to(q.scalar_type());
    node->save_for_backward({q, k, v, out, result.logs, result.columns});
    node->saved_data["workspace"] = workspace_bytes;
    node->saved_data["eps"] = eps;
    return out;
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const variable_list kept = node->get_saved_variables();
    const at::Tensor &q = kept[0], &k = kept[1], &v = kept[2];
    const Gradients found =
        run_backward(gradients[0], q, k, v, {rows_of(kept[3]), kept[4], kept[5]},
                     node->saved_data["workspace"].toInt(), node->saved_data["eps"].toDouble());
    const auto like = [](const at::Tensor& gradient, const at::Tensor& x) {
      return gradient.view(x.sizes()).to(x.scalar_type());
    };
    return {like(found.q, q), like(found.k, k), like(found.v, v), {}, {}};
  }
};

}  // namespace

at::Tensor plain_grouping_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    GroupingMaps* maps, double eps) {
  check(q, k, v);
  const at::ScalarType wide = statistics_type(q.scalar_type());
  const at::Tensor scores = at::matmul(q.to(wide), k.to(wide).transpose(-2, -1));
  const at::Tensor assignment = at::softmax(scores, -1);
  const at::Tensor share = assignment / (assignment.sum(-2, /*keepdim=*/true) + eps);
  if (maps) *maps = {share, assignment};
  return at::matmul(share, v.to(wide)).to(q.scalar_type());
}

at::Tensor grouping_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              int64_t workspace_bytes, double eps) {
  check(q, k, v);
  return GroupingFunction::apply(q, k, v, workspace_bytes, eps);
}

}  // namespace vitrail::ops
