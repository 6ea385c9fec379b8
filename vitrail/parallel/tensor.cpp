#include "vitrail/parallel/tensor.h"

#include "vitrail/core/error.h"
#include "vitrail/models/encoder.h"
#include "vitrail/models/variables.h"
#include "vitrail/parallel/channels.h"
#include "vitrail/parallel/tensor_products.h"

namespace vitrail::parallel {
namespace {

using DivisionPtr = std::shared_ptr<const TensorDivision>;

void check_divides(const char* what, int64_t count, int parts) {
  VT_REQUIRE(ConfigError, count % parts == 0,
             "[tensor] parallel.tensor must divide {} but got {} and {}", what, parts, count);
}

void check(const nn::BlockOptions& block, int parts) {
  check_divides("the attention heads of every block", block.num_heads, parts);
  check_divides("the key and value heads of every block",
                block.num_kv_heads > 0 ? block.num_kv_heads : block.num_heads, parts);
  check_divides("the hidden units of every MLP", block.mlp_hidden, parts);
}

nn::SharedInput enter(const DivisionPtr& division) {
  return [division](const at::Tensor& x, const std::vector<nn::Linear*>& layers) {
    return product_of_columns(division, x, layers);
  };
}

nn::Product leave(const DivisionPtr& division) {
  return [division](const at::Tensor& x, const at::Tensor& weight) {
    return product_of_rows(division, x, weight);
  };
}

nn::Part part_of(const DivisionPtr& division) {
  return {division->group.rank(), division->group.size()};
}

void divide(nn::Block& block, const DivisionPtr& division) {
  check(block.options(), division->group.size());
  block.attention().set_enter(enter(division));
  block.attention().qkv().set_outputs(part_of(division));
  block.attention().proj().set_product(leave(division), {});
  block.mlp().set_enter(enter(division));
  for (nn::Linear* layer : block.mlp().inputs()) layer->set_outputs(part_of(division));
  block.mlp().fc2().set_product(leave(division), {});
}

void divide(models::CrossAggregator& aggregator, const DivisionPtr& division) {
  check_divides("model.aggregation.num_heads", aggregator.num_heads(), division->group.size());
  aggregator.divide(enter(division), leave(division), part_of(division));
}

/// Null when the model's tokens are not of variables.
models::VariableTokenizer* variables_of(models::Model& model) {
  auto* encoded = dynamic_cast<models::EncoderModel*>(&model);
  return encoded ? dynamic_cast<models::VariableTokenizer*>(&encoded->encoder().tokenizer())
                 : nullptr;
}

}  // namespace

class TensorParallel::Impl {
 public:
  Impl(models::Model& model, const config::Parallel& parallel, Groups& groups)
      : ends_(std::make_shared<TensorDivision>(
            TensorDivision{TensorGroup(groups), parallel.tensor_chunks, false})),
        trunks_(std::make_shared<TensorDivision>(
            TensorDivision{ends_->group, parallel.tensor_chunks, parallel.split_norms})) {
    for (nn::Stack* stack : model.stacks())
      for (int i = 0; i < stack->depth(); ++i) divide(stack->block(i), trunks_);
    models::VariableTokenizer* tokenizer = variables_of(model);
    VT_REQUIRE(ConfigError, tokenizer || !parallel.split_channels,
               "[tensor] parallel.split_channels divides model.variables but the model has none");
    if (!tokenizer) return;
    if (parallel.split_channels)
      split_channels(*tokenizer, ends_);
    else
      for (models::CrossAggregator* group : tokenizer->cross_of_groups()) divide(*group, ends_);
    if (tokenizer->cross_of_all()) divide(*tokenizer->cross_of_all(), ends_);
  }

 private:
  DivisionPtr ends_, trunks_;
};

TensorParallel::TensorParallel(models::Model& model, const config::Recipe& recipe, Groups& groups) {
  if (groups.mesh().size(comm::Axis::tensor) > 1)
    impl_ = std::make_unique<Impl>(model, recipe.parallel, groups);
}
TensorParallel::~TensorParallel() = default;

}  // namespace vitrail::parallel
