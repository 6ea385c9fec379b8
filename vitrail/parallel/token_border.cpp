#include "vitrail/parallel/token_border.h"

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/exchange.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Division {
  comm::Communicator* group;
  int64_t tokens;  // of a sample
  int64_t sequence_ranks;
  int64_t run() const { return run_length(tokens, group->size()); }
};

void save(AutogradContext* node, const Division& division) {
  node->saved_data["group"] = reinterpret_cast<int64_t>(division.group);
  node->saved_data["tokens"] = division.tokens;
  node->saved_data["sequence_ranks"] = division.sequence_ranks;
}

Division saved(AutogradContext* node) {
  return {reinterpret_cast<comm::Communicator*>(node->saved_data["group"].toInt()),
          node->saved_data["tokens"].toInt(), node->saved_data["sequence_ranks"].toInt()};
}

at::Tensor own_run(const at::Tensor& x_BLD, const Division& division) {
  return padded_narrow(x_BLD, 1, division.group->rank() * division.run(), division.run());
}

struct Enter : torch::autograd::Function<Enter> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x_BLD,
                            const Division& division) {
    save(node, division);
    return own_run(x_BLD, division).contiguous();
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const Division division = saved(node);
    const at::Tensor whole = gather_runs(gradients[0], division.tokens, *division.group);
    return {division.sequence_ranks == 1 ? whole : whole / division.sequence_ranks, {}};
  }
};

struct Leave : torch::autograd::Function<Leave> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& x_BTD,
                            const Division& division) {
    save(node, division);
    return gather_runs(x_BTD, division.tokens, *division.group);
  }
  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const Division division = saved(node);
    return {own_run(gradients[0], division) * division.sequence_ranks, {}};
  }
};

}  // namespace

TokenBorder::TokenBorder(comm::Communicator& group, int64_t sequence_ranks)
    : group_(group), sequence_ranks_(sequence_ranks), tensor_ranks_(group.size() / sequence_ranks) {
  VT_CHECK(sequence_ranks >= 1 && group.size() % sequence_ranks == 0,
           "[sequence] {} sequence ranks must divide the group of {} ranks", sequence_ranks,
           group.size());
}

at::Tensor TokenBorder::enter(const at::Tensor& x_BLD, nn::Context& context) {
  const Division division{&group_, x_BLD.size(1), sequence_ranks_};
  context.window = {group_.rank() * division.run(), division.tokens};
  if (context.rotary.defined()) {
    // q and k are made of the tokens of all tensor ranks.
    const int64_t count = division.run() * tensor_ranks_;
    const int64_t start = group_.rank() / tensor_ranks_ * count;
    for (at::Tensor* table : {&context.rotary.cos, &context.rotary.sin})
      *table = padded_narrow(*table, 1, start, count);
  }
  if (context.condition_BD.defined())
    context.condition_BD =
        sum_gradients(context.condition_BD, group_, 1.0 / static_cast<double>(sequence_ranks_));
  return Enter::apply(x_BLD, division);
}

at::Tensor TokenBorder::leave(const at::Tensor& x_BTD, int64_t whole_tokens) {
  return Leave::apply(x_BTD, Division{&group_, whole_tokens, sequence_ranks_});
}

}  // namespace vitrail::parallel
