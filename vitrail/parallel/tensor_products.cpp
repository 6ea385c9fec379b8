#include "vitrail/parallel/tensor_products.h"

#include <algorithm>
#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using TensorDivisionPtr = std::shared_ptr<const TensorDivision>;

struct Piece {
  int64_t start, count;
};

/// Rows that a matrix product handles at once on a GPU.
constexpr int64_t kTile = 128;

/// [0, count) in runs of about the same length, of whole tiles where they are that long.
std::vector<Piece> cut(int64_t count, int64_t pieces) {
  const int64_t used = std::max<int64_t>(1, std::min(pieces, count));
  const int64_t step = count / used >= kTile ? kTile : 1;
  std::vector<Piece> found;
  for (int64_t i = 1, start = 0; i <= used; ++i) {
    const int64_t even = count * i / used;
    const int64_t end = i == used ? count : (even + step - 1) / step * step;
    if (end > start) found.push_back({start, end - start});
    start = end;
  }
  return found;
}

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

/// [B, T * l, F] as [T, B, l, F]: rank by rank.
at::Tensor by_rank(const at::Tensor& x_BLF, int64_t ranks) {
  return x_BLF.unflatten(1, {ranks, -1}).transpose(0, 1);
}

/// Pieces [T, B, l of the piece, F] -> [B, T * l, F].
at::Tensor joined(const std::vector<at::Tensor>& pieces_TBlF) {
  std::vector<at::Tensor> pieces_BTlF;
  for (const at::Tensor& piece : pieces_TBlF) pieces_BTlF.push_back(piece.transpose(0, 1));
  const at::Tensor all = pieces_BTlF.size() == 1 ? pieces_BTlF[0] : at::cat(pieces_BTlF, 2);
  return all.flatten(1, 2);
}

at::Tensor concatenated(const std::vector<at::Tensor>& pieces, int64_t axis) {
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, axis);
}

std::vector<at::Tensor> await_all(const TensorGroup& group, std::vector<Pending>& pending) {
  std::vector<at::Tensor> results;
  for (Pending& one : pending) results.push_back(group.await(one));
  return results;
}

std::vector<Pending> gather_pieces(const TensorDivision& division, const at::Tensor& x_BlF) {
  std::vector<Pending> pending;
  for (const Piece& piece : cut(x_BlF.size(1), division.pieces))
    pending.push_back(
        division.group.all_gather(x_BlF.narrow(1, piece.start, piece.count), division.place()));
  return pending;
}

/// sum_i a_i b_i, row by row of pieces, each summed over the ranks while what follows is computed.
class SummedProduct {
 public:
  SummedProduct(const TensorDivision& division, const std::vector<at::Tensor>& a_MF,
                const std::vector<at::Tensor>& b_FD, Where where)
      : group_(division.group),
        out_MD_(at::empty({a_MF[0].size(0), b_FD[0].size(1)}, a_MF[0].options())) {
    for (const Piece& piece : cut(out_MD_.size(0), division.pieces)) {
      at::Tensor out = out_MD_.narrow(0, piece.start, piece.count);
      at::mm_out(out, a_MF[0].narrow(0, piece.start, piece.count), b_FD[0]);
      for (size_t i = 1; i < a_MF.size(); ++i)
        out.addmm_(a_MF[i].narrow(0, piece.start, piece.count), b_FD[i]);
      pending_.push_back(group_.all_reduce(out, where));
    }
  }
  at::Tensor await() {
    await_all(group_, pending_);
    return out_MD_;
  }

 private:
  const TensorGroup& group_;
  at::Tensor out_MD_;
  std::vector<Pending> pending_;
};

/// The same for a_i [T, B, l, F], by pieces of l; each rank gets its [B, l, D] of the sum.
class ScatteredProduct {
 public:
  ScatteredProduct(const TensorDivision& division, const std::vector<at::Tensor>& a_TBlF,
                   const std::vector<at::Tensor>& b_FD, Where where)
      : group_(division.group) {
    std::vector<int64_t> shape = a_TBlF[0].sizes().vec();
    shape[3] = b_FD[0].size(1);
    for (const Piece& piece : cut(a_TBlF[0].size(2), division.pieces)) {
      const auto rows = [&](const at::Tensor& a) {
        return rows_of(a.narrow(2, piece.start, piece.count));
      };
      at::Tensor out = at::mm(rows(a_TBlF[0]), b_FD[0]);
      for (size_t i = 1; i < a_TBlF.size(); ++i) out.addmm_(rows(a_TBlF[i]), b_FD[i]);
      shape[2] = piece.count;
      pending_.push_back(group_.reduce_scatter(out.view(shape), where));
    }
  }
  at::Tensor await() { return concatenated(await_all(group_, pending_), 1); }

 private:
  const TensorGroup& group_;
  std::vector<Pending> pending_;
};

/// The capsule that carries what autograd cannot.
struct Held : torch::CustomClassHolder {
  explicit Held(TensorDivisionPtr held) : division(std::move(held)) {}
  TensorDivisionPtr division;
};

void hold(AutogradContext* node, const TensorDivisionPtr& division) {
  node->saved_data["division"] = at::IValue::make_capsule(c10::make_intrusive<Held>(division));
}

const TensorDivision& held(AutogradContext* node) {
  return *c10::static_intrusive_pointer_cast<Held>(node->saved_data["division"].toCapsule())
              ->division;
}

at::Tensor gradient_of_bias(const at::Tensor& dy) {
  std::vector<int64_t> axes(dy.dim() - 1);
  for (size_t axis = 0; axis < axes.size(); ++axis) axes[axis] = static_cast<int64_t>(axis);
  return dy.sum(axes);
}

/// One or two layers; biases may be missing.
struct ColumnsFunction : Function<ColumnsFunction> {
  static variable_list forward(AutogradContext* node, const TensorDivisionPtr& division,
                               const at::Tensor& x, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias,
                               const std::optional<at::Tensor>& second_weight,
                               const std::optional<at::Tensor>& second_bias) {
    hold(node, division);
    node->saved_data["biases"] = (bias.has_value() ? 1 : 0) + (second_bias.has_value() ? 2 : 0);
    variable_list saved{x, weight};
    std::vector<std::optional<at::Tensor>> biases{bias};
    if (second_weight) saved.push_back(*second_weight), biases.push_back(second_bias);
    node->save_for_backward(saved);
    const std::vector<at::Tensor> weights(saved.begin() + 1, saved.end());
    if (division->split_tokens) return gathered_products(*division, x, weights, biases);
    variable_list out;
    for (size_t i = 0; i < weights.size(); ++i) out.push_back(at::linear(x, weights[i], biases[i]));
    return out;
  }

  static variable_list backward(AutogradContext* node, const variable_list& dy) {
    const TensorDivision& division = held(node);
    const variable_list saved = node->get_saved_variables();
    const std::vector<at::Tensor> weights(saved.begin() + 1, saved.end());
    variable_list gradients = division.split_tokens ? split(division, dy, saved[0], weights)
                                                    : whole(division, dy, saved[0], weights);
    const int64_t biases = node->saved_data["biases"].toInt();
    variable_list result{{}, gradients[0]};
    for (size_t i = 0; i < 2; ++i) {
      const bool here = i < weights.size();
      result.push_back(here ? gradients[1 + i] : at::Tensor());
      result.push_back(here && (biases >> i & 1) ? gradient_of_bias(dy[i]) : at::Tensor());
    }
    return result;
  }

 private:
  static variable_list gathered_products(const TensorDivision& division, const at::Tensor& x_BlD,
                                         const std::vector<at::Tensor>& weights,
                                         const std::vector<std::optional<at::Tensor>>& biases) {
    std::vector<Pending> pending = gather_pieces(division, x_BlD);
    std::vector<std::vector<at::Tensor>> pieces(weights.size());
    for (Pending& one : pending) {
      const at::Tensor x_TBlD = division.group.await(one);
      for (size_t i = 0; i < weights.size(); ++i)
        pieces[i].push_back(at::linear(x_TBlD, weights[i], biases[i]));
    }
    variable_list out;
    for (const std::vector<at::Tensor>& of_layer : pieces) out.push_back(joined(of_layer));
    return out;
  }

  /// Gradients of x and of the weights.
  static variable_list whole(const TensorDivision& division, const variable_list& dy,
                             const at::Tensor& x, const std::vector<at::Tensor>& weights) {
    std::vector<at::Tensor> dy_MF;
    for (const at::Tensor& one : dy) dy_MF.push_back(rows_of(one));
    SummedProduct dx_MD(division, dy_MF, weights, Where::beside);
    variable_list gradients{{}};
    const at::Tensor x_MD = rows_of(x);
    for (const at::Tensor& one : dy_MF) gradients.push_back(at::mm(one.t(), x_MD));
    gradients[0] = dx_MD.await().view(x.sizes());
    return gradients;
  }

  static variable_list split(const TensorDivision& division, const variable_list& dy,
                             const at::Tensor& x_BlD, const std::vector<at::Tensor>& weights) {
    Pending gathering = division.group.all_gather(x_BlD, Where::beside);
    std::vector<at::Tensor> dy_TBlF;
    for (const at::Tensor& one : dy)
      dy_TBlF.push_back(by_rank(one, division.group.size()).contiguous());
    ScatteredProduct dx_BlD(division, dy_TBlF, weights, Where::beside);
    variable_list gradients{{}};
    const at::Tensor x_MD = rows_of(division.group.await(gathering));
    for (const at::Tensor& one : dy_TBlF) gradients.push_back(at::mm(rows_of(one).t(), x_MD));
    gradients[0] = dx_BlD.await();
    return gradients;
  }
};

struct RowsFunction : Function<RowsFunction> {
  static at::Tensor forward(AutogradContext* node, const TensorDivisionPtr& division,
                            const at::Tensor& x, const at::Tensor& weight) {
    hold(node, division);
    node->save_for_backward({x, weight});
    const Where place = division->place();
    if (division->split_tokens)
      return ScatteredProduct(*division, {by_rank(x, division->group.size())}, {weight.t()}, place)
          .await();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return SummedProduct(*division, {rows_of(x)}, {weight.t()}, place).await().view(shape);
  }

  static variable_list backward(AutogradContext* node, const variable_list& dy) {
    const TensorDivision& division = held(node);
    const variable_list saved = node->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    if (division.split_tokens) return split(division, dy[0], x, weight);
    const at::Tensor dy_MD = rows_of(dy[0]);
    return {{}, at::mm(dy_MD, weight).view(x.sizes()), at::mm(dy_MD.t(), rows_of(x))};
  }

 private:
  static variable_list split(const TensorDivision& division, const at::Tensor& dy_BlD,
                             const at::Tensor& x_BLF, const at::Tensor& weight) {
    std::vector<Pending> pending = gather_pieces(division, dy_BlD);
    std::vector<at::Tensor> dy_TBlD, dx_TBlF;
    for (Pending& one : pending) {
      dy_TBlD.push_back(division.group.await(one));
      dx_TBlF.push_back(at::matmul(dy_TBlD.back(), weight));
    }
    const at::Tensor dy_MD = rows_of(concatenated(dy_TBlD, 2));
    const at::Tensor x_MF = rows_of(by_rank(x_BLF, division.group.size()));
    return {{}, joined(dx_TBlF), at::mm(dy_MD.t(), x_MF)};
  }
};

struct GatherAlikeFunction : Function<GatherAlikeFunction> {
  static at::Tensor forward(AutogradContext* node, const TensorDivisionPtr& division,
                            const at::Tensor& x) {
    hold(node, division);
    Pending gathering = division->group.all_gather(x, Where::here);
    return division->group.await(gathering);
  }
  static variable_list backward(AutogradContext* node, const variable_list& dy) {
    return {{}, dy[0].select(0, held(node).group.rank())};
  }
};

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

std::vector<at::Tensor> product_of_columns(const TensorDivisionPtr& division, const at::Tensor& x,
                                           const std::vector<nn::Linear*>& layers) {
  VT_CHECK(layers.size() == 1 || layers.size() == 2,
           "[tensor] one or two layers must share an input but {} do", layers.size());
  std::optional<at::Tensor> weight, bias;
  if (layers.size() == 2) weight = layers[1]->weight(), bias = if_defined(layers[1]->bias());
  return ColumnsFunction::apply(division, x, layers[0]->weight(), if_defined(layers[0]->bias()),
                                weight, bias);
}

at::Tensor product_of_rows(const TensorDivisionPtr& division, const at::Tensor& x,
                           const at::Tensor& weight) {
  return RowsFunction::apply(division, x, weight);
}

at::Tensor gather_alike(const TensorDivisionPtr& division, const at::Tensor& x) {
  return GatherAlikeFunction::apply(division, x);
}

}  // namespace vitrail::parallel
