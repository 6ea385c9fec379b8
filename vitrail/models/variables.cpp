#include "vitrail/models/variables.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/masking.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/position.h"

namespace vitrail::models {
namespace {

/// A cross-aggregator that owns its query; for groups.
class QueryingAggregator : public Aggregator {
 public:
  explicit QueryingAggregator(const config::Model& options) {
    const at::Tensor query = register_parameter("query", {1, 1, options.embed_dim});
    cross_ = register_module("", std::make_shared<CrossAggregator>(options, query));
  }
  at::Tensor forward(const at::Tensor& x_MVD, const std::vector<int64_t>& ids) const override {
    return cross_->forward(x_MVD, ids);
  }
  CrossAggregator* cross() override { return cross_.get(); }

 private:
  std::shared_ptr<CrossAggregator> cross_;
};

}  // namespace

LinearAggregator::LinearAggregator(int64_t known) {
  weight_ = register_parameter("weight", {known});
}

at::Tensor LinearAggregator::forward(const at::Tensor& x_MVD,
                                     const std::vector<int64_t>& ids) const {
  const at::Tensor weight_V = weight_.index_select(0, indices_.on(x_MVD.device(), ids));
  // A matrix product keeps its sum in fp32 for 16-bit types.
  return at::matmul((weight_V / static_cast<double>(ids.size())).unsqueeze(0), x_MVD).squeeze(1);
}

CrossAggregator::CrossAggregator(const config::Model& options, at::Tensor query)
    : query_(std::move(query)),
      num_heads_(options.aggregation.num_heads.value_or(options.num_heads)) {
  const int64_t D = options.embed_dim, Q = query_.size(1);
  VT_REQUIRE(
      ConfigError, num_heads_ > 0 && D % num_heads_ == 0,
      "[config] model.embed_dim must be a multiple of model.aggregation.num_heads but got {} "
      "and {}",
      D, num_heads_);
  q_ = register_module("q", std::make_shared<nn::Linear>(D, D, false));
  kv_ = register_module("kv", std::make_shared<nn::Linear>(D, 2 * D, false));
  if (options.qk_norm) {
    q_norm_ = register_module("q_norm",
                              std::make_shared<nn::Norm>(D / num_heads_, norm_options(options)));
    k_norm_ = register_module("k_norm",
                              std::make_shared<nn::Norm>(D / num_heads_, norm_options(options)));
  }
  proj_ = register_module("proj", std::make_shared<nn::Linear>(D, D));
  if (Q > 1) merge_ = register_module("merge", std::make_shared<nn::Linear>(Q * D, D));
}

void CrossAggregator::divide(nn::SharedInput enter, nn::Product leave, nn::Part part) {
  enter_ = std::move(enter);
  for (nn::Linear* layer : {q_.get(), kv_.get()}) layer->set_outputs(part);
  proj_->set_product(std::move(leave), {});
}

at::Tensor CrossAggregator::forward(const at::Tensor& x_MVD, const std::vector<int64_t>&) const {
  const int64_t M = x_MVD.size(0), V = x_MVD.size(1), E = x_MVD.size(2) / num_heads_;
  const auto run = [&](nn::Linear& layer, const at::Tensor& x) {
    return enter_ ? enter_(x, {&layer})[0] : layer.forward(x);
  };
  // N: the heads that are here.
  at::Tensor q_QNE = run(*q_, query_).view({query_.size(1), -1, E});
  const at::Tensor kv_MV2NE = run(*kv_, x_MVD).view({M, V, 2, -1, E});
  at::Tensor k_MVNE = kv_MV2NE.select(2, 0);
  if (q_norm_) q_QNE = q_norm_->forward(q_QNE), k_MVNE = k_norm_->forward(k_MVNE);
  // Products over few tokens at very many places: plain ones, because fused attention limits the batch.
  const at::Tensor scores_MNQV =
      at::matmul(q_QNE.transpose(0, 1), k_MVNE.permute({0, 2, 3, 1})) / std::sqrt(double(E));
  const at::Tensor p_MNQV = at::softmax(scores_MNQV, -1, at::kFloat).to(x_MVD.scalar_type());
  const at::Tensor v_MNVE = kv_MV2NE.select(2, 1).transpose(1, 2);
  const at::Tensor merged_MQD =
      at::matmul(p_MNQV, v_MNVE).transpose(1, 2).reshape({M, query_.size(1), -1});
  const at::Tensor out_MQD = proj_->forward(merged_MQD);
  return merge_ ? merge_->forward(out_MQD.flatten(1)) : out_MQD.squeeze(1);
}

VariableTokenizer::VariableTokenizer(const config::Model& options) : options_(options) {
  const int64_t V = known_channels(options), D = options.embed_dim;
  if (options.variable_embedding) {
    var_embed_ = register_parameter("var_embed", {1, V, D});
    VT_REQUIRE(ConfigError, D % 2 == 0,
               "[config] model.embed_dim must be even for variable embeddings but got {}", D);
    start_at(var_embed_, ops::sincos_table({V}, D).unsqueeze(0));
  }
  for (int64_t v = 0; v < (options.shared_tokenizer ? 1 : V); ++v) {
    std::shared_ptr<PatchLayer> layer;
    if (adaptive())
      layer = std::make_shared<LeafLayer>(options, patch_pixels(options));
    else
      layer = std::make_shared<ConvolutionLayer>(options, 1);
    layers_.push_back(register_module(fmt::format("token_embeds.{}", v), layer));
  }
  if (!options.single_channel && !trees_per_channel(options) && V > 1) add_aggregation();
}

void VariableTokenizer::add_aggregation() {
  const config::Aggregation& how = options_.aggregation;
  const int64_t V = known_channels(options_);
  if (how.groups > 1) {
    VT_REQUIRE(ConfigError, V % how.groups == 0,
               "[config] the number of model.variables must be a multiple of "
               "model.aggregation.groups but got {} and {}",
               V, how.groups);
    for (int64_t g = 0; g < (how.shared_groups ? 1 : how.groups); ++g) {
      std::shared_ptr<Aggregator> group;
      if (how.partial == "linear")
        group = std::make_shared<LinearAggregator>(V / how.groups);
      else
        group = std::make_shared<QueryingAggregator>(options_);
      groups_.push_back(register_module(fmt::format("var_groups.{}", g), group));
    }
  }
  if (how.kind == "linear") {
    final_ = std::make_shared<LinearAggregator>(how.groups > 1 ? how.groups : V);
  } else {
    VT_REQUIRE(ConfigError, how.queries >= 1,
               "[config] model.aggregation.queries must be at least 1 but got {}", how.queries);
    var_query_ = register_parameter("var_query", {1, how.queries, options_.embed_dim});
    final_ = std::make_shared<CrossAggregator>(options_, var_query_);
  }
  register_module("var_agg", final_);
}

at::Tensor VariableTokenizer::patches(const data::Batch& batch, int64_t variables,
                                      const at::Tensor& keep_BK,
                                      const std::optional<std::vector<int64_t>>& places) const {
  const auto chosen = [&](const at::Tensor& channels) {
    return places ? channels.index_select(1, indices_.on(channels.device(), *places)) : channels;
  };
  at::Tensor patches_BVLS;
  if (adaptive()) {
    check_leaves(options_, variables, batch);
    patches_BVLS = chosen(batch.leaf_tokens).to(dtype());
    if (trees_per_channel(options_))
      patches_BVLS = patches_BVLS.squeeze(1).unflatten(1, {variables, -1});
  } else {
    check_image(options_, variables, batch.image);
    const at::Tensor image = chosen(batch.image);
    const at::Tensor single = image.to(dtype()).flatten(0, 1).unsqueeze(1);
    patches_BVLS = ops::patchify(single, options_.patch_size, ops::PatchOrder::channel_first)
                       .view({image.size(0), image.size(1), num_patches(), patch_pixels(options_)});
  }
  if (!keep_BK.defined()) return patches_BVLS;
  return patches_BVLS.gather(2, keep_BK.unsqueeze(1).unsqueeze(-1).expand(
                                    {-1, patches_BVLS.size(1), -1, patches_BVLS.size(3)}));
}

/// One batched product over the variables, each with its own weight.
at::Tensor VariableTokenizer::embed_separately(const at::Tensor& patches_VMS,
                                               const at::Tensor& offsets_V1D,
                                               const std::vector<int64_t>& ids) const {
  if (adaptive()) {
    std::vector<at::Tensor> tokens;
    for (size_t v = 0; v < ids.size(); ++v)
      tokens.push_back(layers_[ids[v]]->forward(patches_VMS.select(0, static_cast<int64_t>(v))));
    const at::Tensor x_VMD = at::stack(tokens);
    return offsets_V1D.defined() ? x_VMD + offsets_V1D : x_VMD;
  }
  std::vector<at::Tensor> weights, biases;
  for (const int64_t id : ids) {
    const auto& projection = static_cast<const ConvolutionLayer&>(*layers_[id]).projection();
    weights.push_back(projection.weight().flatten(1));
    if (projection.bias().defined()) biases.push_back(projection.bias().unsqueeze(0));
  }
  at::Tensor added_V1D = biases.empty() ? at::Tensor() : at::stack(biases);
  if (offsets_V1D.defined())
    added_V1D = added_V1D.defined() ? added_V1D + offsets_V1D : offsets_V1D;
  const at::Tensor weights_VSD = at::stack(weights).transpose(1, 2);
  return added_V1D.defined() ? at::baddbmm(added_V1D, patches_VMS, weights_VSD)
                             : at::matmul(patches_VMS, weights_VSD);
}

at::Tensor VariableTokenizer::embed(const at::Tensor& patches_VMS,
                                    const std::vector<int64_t>& ids) const {
  at::Tensor offsets_V1D;
  if (var_embed_.defined())
    offsets_V1D =
        var_embed_.index_select(1, indices_.on(patches_VMS.device(), ids)).transpose(0, 1);
  if (layers_.size() > 1) return embed_separately(patches_VMS, offsets_V1D, ids);
  const at::Tensor x_VMD = layers_[0]->forward(patches_VMS);
  return offsets_V1D.defined() ? x_VMD + offsets_V1D : x_VMD;
}

at::Tensor VariableTokenizer::group_token(int64_t g, const at::Tensor& x_MVD,
                                          const std::vector<int64_t>& ids) const {
  const int64_t of_group = variables_of_group();
  std::vector<int64_t> places, members;  // in the batch; inside the group
  for (size_t v = 0; v < ids.size(); ++v)
    if (ids[v] / of_group == g)
      places.push_back(static_cast<int64_t>(v)), members.push_back(ids[v] % of_group);
  if (places.empty()) return {};
  const Aggregator& group = *groups_[groups_.size() > 1 ? g : 0];
  return group.forward(x_MVD.index_select(1, indices_.on(x_MVD.device(), places)), members);
}

/// Groups without a variable in this batch are left out.
at::Tensor VariableTokenizer::aggregate(const at::Tensor& x_MVD,
                                        const std::vector<int64_t>& ids) const {
  if (groups_.empty()) return final_->forward(x_MVD, ids);
  std::vector<at::Tensor> tokens;
  std::vector<int64_t> present;
  for (int64_t g = 0; g < options_.aggregation.groups; ++g) {
    const at::Tensor token = group_token(g, x_MVD, ids);
    if (token.defined()) tokens.push_back(token), present.push_back(g);
  }
  return final_->forward(at::stack(tokens, 1), present);
}

void VariableTokenizer::set_share(ChannelShare share) {
  VT_REQUIRE(ConfigError, !groups_.empty() && options_.aggregation.groups % share.of == 0,
             "[config] parallel.split_channels needs model.aggregation.groups to be a multiple of "
             "parallel.tensor, and more than one variable, but got {} and {}",
             groups_.empty() ? 0 : options_.aggregation.groups, share.of);
  share_ = std::move(share);
}

std::vector<CrossAggregator*> VariableTokenizer::cross_of_groups() const {
  std::vector<CrossAggregator*> found;
  for (const std::shared_ptr<Aggregator>& group : groups_)
    if (group->cross()) found.push_back(group->cross());
  return found;
}

at::Tensor VariableTokenizer::forward_shared(const data::Batch& batch,
                                             const std::vector<int64_t>& ids,
                                             const at::Tensor& keep_BK) const {
  const int64_t groups = options_.aggregation.groups, here = groups / share_.of;
  const int64_t first = share_.index * here, of_group = variables_of_group();
  std::vector<int64_t> places, own, present;
  std::vector<bool> has(groups);
  for (size_t v = 0; v < ids.size(); ++v) {
    const int64_t g = ids[v] / of_group;
    has[g] = true;
    if (g >= first && g < first + here)
      places.push_back(static_cast<int64_t>(v)), own.push_back(ids[v]);
  }
  const at::Tensor patches_BVKS = patches(batch, static_cast<int64_t>(ids.size()), keep_BK, places);
  const auto V = static_cast<int64_t>(own.size());
  const int64_t M = patches_BVKS.size(0) * patches_BVKS.size(2);
  const at::Tensor none =
      at::zeros({M, options_.embed_dim}, patches_BVKS.options().requires_grad(false));
  at::Tensor x_MVD;
  if (V > 0) x_MVD = embed(patches_BVKS.transpose(0, 1).reshape({V, M, -1}), own).transpose(0, 1);
  std::vector<at::Tensor> tokens;
  for (int64_t g = first; g < first + here; ++g)
    tokens.push_back(has[g] ? group_token(g, x_MVD, own) : none);
  for (int64_t g = 0; g < groups; ++g)
    if (has[g]) present.push_back(g);
  const at::Tensor x_GMD = share_.gather(at::stack(tokens));
  return final_->forward(
      x_GMD.index_select(0, indices_.on(x_GMD.device(), present)).transpose(0, 1), present);
}

/// Kept leaves are any of any variables', so all are embedded by their variables' layers before some are left out.
at::Tensor VariableTokenizer::embed_apart(const at::Tensor& patches_BVLS,
                                          const std::vector<int64_t>& ids,
                                          const at::Tensor& keep_BK) const {
  const int64_t B = patches_BVLS.size(0), V = patches_BVLS.size(1), L = patches_BVLS.size(2);
  const at::Tensor x_VMD = embed(patches_BVLS.transpose(0, 1).reshape({V, B * L, -1}), ids);
  const at::Tensor x_BMD = x_VMD.view({V, B, L, -1}).transpose(0, 1).flatten(1, 2);
  return keep_BK.defined() ? ops::gather_tokens(x_BMD, keep_BK) : x_BMD;
}

at::Tensor VariableTokenizer::forward(const data::Batch& batch, const at::Tensor& keep_BK) const {
  const std::vector<int64_t> ids = variable_ids(options_, batch.variables);
  const auto V = static_cast<int64_t>(ids.size());
  VT_REQUIRE(DataError, !options_.single_channel || V == 1,
             "[model] with model.single_channel a batch must hold one variable but holds {}", V);
  if (trees_per_channel(options_)) return embed_apart(patches(batch, V, {}), ids, keep_BK);
  if (share_.of > 1) {
    const at::Tensor x_MD = forward_shared(batch, ids, keep_BK);
    const int64_t B = (adaptive() ? batch.leaf_tokens : batch.image).size(0);
    return x_MD.view({B, -1, options_.embed_dim});
  }
  const at::Tensor patches_BVKS = patches(batch, V, keep_BK);
  const int64_t B = patches_BVKS.size(0), K = patches_BVKS.size(2);
  const at::Tensor x_VMD = embed(patches_BVKS.transpose(0, 1).reshape({V, B * K, -1}), ids);
  const at::Tensor x_MD = final_ ? aggregate(x_VMD.transpose(0, 1), ids) : x_VMD.squeeze(0);
  return x_MD.view({B, K, -1});
}

int64_t VariableTokenizer::num_patches() const {
  return adaptive() ? options_.num_leaves() : options_.num_patches();
}

std::vector<std::string> VariableTokenizer::prefixes() const {
  return {"var_embed", "token_embeds.", "var_groups.", "var_query", "var_agg."};
}

}  // namespace vitrail::models
