#include "vitrail/models/detection_head.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logit.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>

#include "vitrail/core/error.h"
#include "vitrail/models/parts.h"
#include "vitrail/nn/mlp.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/norm.h"

namespace vitrail::models {
namespace {

constexpr double kFirstSide = 0.1;  // of the box that a place begins with, a share of the image
constexpr double kFirstProbability = 0.01;  // of every class, focal loss
constexpr double kEdge = 1e-4;  // places are kept this far from 0 and 1, whose logits are infinite
constexpr double kNearestReach = 8.0;  // of the first head; each next reaches further

at::Tensor exact(const at::Tensor& x) { return x.to(ops::statistics_type(x.scalar_type())); }

at::Tensor logits_of(const at::Tensor& shares) { return at::logit(shares, kEdge); }

/// Sines and cosines of each number: x [..., n] -> [..., n * width / 2], `width` a multiple of 4.
/// The least frequency turns once over the image, as in Liu et al. 2022; the base is theirs too.
at::Tensor waves(const at::Tensor& x, int64_t width) {
  constexpr double kBase = 20.0;
  const at::Tensor steps = at::arange(width / 4, x.options());
  const at::Tensor rates =
      at::pow(kBase, steps * (-4.0 / static_cast<double>(width))) * (2 * std::numbers::pi);
  const at::Tensor angles = x.unsqueeze(-1) * rates;
  return at::cat({angles.sin(), angles.cos()}, -1).flatten(-2);
}

/// Halton-like points of Roberts's R2 sequence: spread evenly however many there are. Logits [Q, 4].
at::Tensor spread_places(int64_t count) {
  const at::Tensor places = at::empty({count, 4}, at::kFloat);
  float* out = places.mutable_data_ptr<float>();
  const auto share = [](int64_t i, double step) {
    const double x = 0.5 + static_cast<double>(i) * step;
    return std::clamp(x - std::floor(x), 0.02, 0.98);
  };
  const auto logit = [](double p) { return static_cast<float>(std::log(p / (1 - p))); };
  for (int64_t i = 0; i < count; ++i, out += 4) {
    out[0] = logit(share(i, 0.7548776662466927));
    out[1] = logit(share(i, 0.5698402909980532));
    out[2] = out[3] = logit(2 * kFirstSide);
  }
  return places;
}

at::Tensor heads(const at::Tensor& x_BTW, int64_t N) {
  return x_BTW.unflatten(-1, {N, -1}).transpose(1, 2);
}

}  // namespace

/// Attention with queries, keys and values of its own. Names q, k, v, proj.
class QueryAttention : public nn::Module {
 public:
  QueryAttention(int64_t width, int64_t num_heads) : num_heads_(num_heads) {
    for (auto [name, layer] : {std::pair{"q", &q_}, {"k", &k_}, {"v", &v_}, {"proj", &proj_}})
      *layer = register_module(name, std::make_shared<nn::Linear>(width, width));
  }

  at::Tensor forward(const at::Tensor& q_BQW, const at::Tensor& k_BTW,
                     const at::Tensor& v_BTW) const {
    return finish(ops::sdpa(heads(q_->forward(q_BQW), num_heads_),
                            heads(k_->forward(k_BTW), num_heads_),
                            heads(v_->forward(v_BTW), num_heads_)));
  }

  /// `bias_BNQT` is added to the scores.
  at::Tensor forward(const at::Tensor& q_BQW, const at::Tensor& k_BTW, const at::Tensor& v_BTW,
                     const at::Tensor& bias_BNQT) const {
    const at::Tensor q = heads(q_->forward(q_BQW), num_heads_);
    const at::Tensor k = heads(k_->forward(k_BTW), num_heads_);
    const at::Tensor v = heads(v_->forward(v_BTW), num_heads_);
    const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
    const at::Tensor scores = exact(at::matmul(q * scale, k.transpose(-1, -2))) + bias_BNQT;
    return finish(at::matmul(at::softmax(scores, -1).to(v.scalar_type()), v));
  }

 private:
  at::Tensor finish(const at::Tensor& x_BNQE) const {
    return proj_->forward(x_BNQE.transpose(1, 2).flatten(2));
  }

  int64_t num_heads_;
  std::shared_ptr<nn::Linear> q_, k_, v_, proj_;
};

/// The tokens as all blocks see them.
struct Memory {
  at::Tensor keys_BLW, values_BLW;
  at::Tensor places_L2;  // fp32
};

class QueryBlock : public nn::Module {
 public:
  QueryBlock(const config::Model& options, int64_t width, int64_t mlp_hidden) {
    const int64_t N = options.detection.decoder_num_heads;
    const nn::NormOptions norm = norm_options(options);
    norm1_ = register_module("norm1", std::make_shared<nn::Norm>(width, norm));
    self_ = register_module("self", std::make_shared<QueryAttention>(width, N));
    norm2_ = register_module("norm2", std::make_shared<nn::Norm>(width, norm));
    cross_ = register_module("cross", std::make_shared<QueryAttention>(width, N));
    norm3_ = register_module("norm3", std::make_shared<nn::Norm>(width, norm));
    nn::MlpOptions mlp;
    mlp.width = width;
    mlp.hidden = mlp_hidden;
    mlp_ = register_module("mlp", std::make_shared<nn::Mlp>(mlp));
    reach_ = register_parameter("reach", {N});
    start_at(reach_, at::arange(N, at::kFloat) * -std::numbers::ln2 + std::log(kNearestReach));
  }

  at::Tensor forward(at::Tensor x_BQW, const at::Tensor& place_BQW, const at::Tensor& boxes_BQ4,
                     const Memory& memory) const {
    const at::Tensor y_BQW = norm1_->forward(x_BQW);
    x_BQW = x_BQW + self_->forward(y_BQW + place_BQW, y_BQW + place_BQW, y_BQW);
    x_BQW = x_BQW + cross_->forward(norm2_->forward(x_BQW) + place_BQW, memory.keys_BLW,
                                    memory.values_BLW, nearness(boxes_BQ4, memory.places_L2));
    return x_BQW + mlp_->forward(norm3_->forward(x_BQW), {});
  }

 private:
  /// Falls with the square of a token's distance from the box's centre in units of the box's sides, faster for heads
  /// with a large e^reach: [B, N, Q, L].
  at::Tensor nearness(const at::Tensor& boxes_BQ4, const at::Tensor& places_L2) const {
    const at::Tensor offset_BQL2 = places_L2 - boxes_BQ4.slice(-1, 0, 2).unsqueeze(-2);
    const at::Tensor sides_BQ12 = boxes_BQ4.slice(-1, 2, 4).unsqueeze(-2);
    const at::Tensor distance_BQL = (offset_BQL2 / sides_BQ12).square().sum(-1);
    return exact(reach_).exp().view({-1, 1, 1}) * -distance_BQL.unsqueeze(1);
  }

  std::shared_ptr<nn::Norm> norm1_, norm2_, norm3_;
  std::shared_ptr<QueryAttention> self_, cross_;
  std::shared_ptr<nn::Mlp> mlp_;
  at::Tensor reach_;  // [N]
};

/// A box's place as a vector. Names fc1, fc2.
class PlaceMlp : public nn::Module {
 public:
  explicit PlaceMlp(int64_t width) : width_(width) {
    fc1_ = register_module("fc1", std::make_shared<nn::Linear>(2 * width, width));
    fc2_ = register_module("fc2", std::make_shared<nn::Linear>(width, width));
  }
  at::Tensor forward(const at::Tensor& boxes, at::ScalarType dtype) const {
    return fc2_->forward(at::relu(fc1_->forward(waves(boxes, width_).to(dtype))));
  }

 private:
  int64_t width_;
  std::shared_ptr<nn::Linear> fc1_, fc2_;
};

/// Names class, box.fc1, box.fc2, box.fc3 (with a prefix "dense_" of the tokens).
class BoxLayers : public nn::Module {
 public:
  BoxLayers(const std::string& prefix, int64_t width, int64_t logits) {
    class_ = register_module(prefix + "class", std::make_shared<nn::Linear>(width, logits));
    int64_t i = 0;
    for (auto* layer : {&fc1_, &fc2_, &fc3_}) {
      const int64_t outputs = ++i == 3 ? 4 : width;
      *layer = register_module(prefix + "box.fc" + std::to_string(i),
                               std::make_shared<nn::Linear>(width, outputs));
    }
  }

  /// What x [B, Q, W] says from places (logits): the box is sigmoid(place + correction).
  BoxPrediction forward(const at::Tensor& x_BQW, const at::Tensor& places_BQ4) const {
    const at::Tensor hidden = at::relu(fc2_->forward(at::relu(fc1_->forward(x_BQW))));
    return {exact(class_->forward(x_BQW)), at::sigmoid(exact(fc3_->forward(hidden)) + places_BQ4)};
  }

 private:
  std::shared_ptr<nn::Linear> class_, fc1_, fc2_, fc3_;
};

namespace {

/// Of any class: [B, Q].
at::Tensor best_score(const at::Tensor& logits, bool is_focal) {
  if (is_focal) return std::get<0>(logits.max(-1));
  return 1 - at::softmax(logits, -1).select(-1, logits.size(-1) - 1);
}

}  // namespace

DetectionHead::DetectionHead(const config::Model& options, int64_t input_width)
    : width_(options.detection.decoder_embed_dim.value_or(options.embed_dim)),
      num_queries_(options.detection.num_queries),
      num_heads_(options.detection.decoder_num_heads),
      is_focal_(options.detection.class_loss == "focal"),
      input_width_(input_width),
      mlp_hidden_(static_cast<int64_t>(static_cast<double>(width_) * options.mlp_ratio)) {
  const config::Detection& detection = options.detection;
  VT_REQUIRE(ConfigError, width_ % 4 == 0 && num_heads_ > 0 && width_ % num_heads_ == 0,
             "[config] the width of model.detection's decoder must be a multiple of 4 and of "
             "model.detection.decoder_num_heads but got {} and {}",
             width_, num_heads_);
  const bool from_grid = detection.queries == "grid";
  VT_REQUIRE(ConfigError, detection.decoder_depth >= (from_grid ? 0 : 1),
             "[config] model.detection.decoder_depth must be at least 1 for learned queries but "
             "got {}",
             detection.decoder_depth);
  const int64_t logits = options.num_classes + (is_focal_ ? 0 : 1);
  const nn::NormOptions norm = norm_options(options);
  input_ = register_module("input", std::make_shared<nn::Linear>(input_width, width_));
  if (from_grid) {
    dense_norm_ = register_module("dense_norm", std::make_shared<nn::Norm>(width_, norm));
    dense_ = register_module("", std::make_shared<BoxLayers>("dense_", width_, logits));
  } else {
    query_contents_ = register_parameter("query_contents", {num_queries_, width_});
    query_places_ = register_parameter("query_places", {num_queries_, 4});
    start_at(query_places_, spread_places(num_queries_));
  }
  if (detection.decoder_depth == 0) return;
  place_ = register_module("place", std::make_shared<PlaceMlp>(width_));
  for (int64_t i = 0; i < detection.decoder_depth; ++i)
    blocks_.push_back(register_module("blocks." + std::to_string(i),
                                      std::make_shared<QueryBlock>(options, width_, mlp_hidden_)));
  norm_ = register_module("norm", std::make_shared<nn::Norm>(width_, norm));
  layers_ = register_module("", std::make_shared<BoxLayers>("", width_, logits));
}

DetectionHead::~DetectionHead() = default;

DetectionHead::Queries DetectionHead::learned_queries(int64_t batch) const {
  return {query_contents_.expand({batch, -1, -1}), exact(query_places_).expand({batch, -1, -1})};
}

BoxPrediction DetectionHead::dense_prediction(const at::Tensor& tokens_BLW,
                                              const at::Tensor& positions_L2) const {
  const at::Tensor sides_L2 = at::empty_like(positions_L2).fill_(kFirstSide);
  return dense_->forward(dense_norm_->forward(tokens_BLW),
                         logits_of(at::cat({positions_L2, sides_L2}, -1)));
}

DetectionHead::Queries DetectionHead::best_tokens(const at::Tensor& tokens_BLW,
                                                  const BoxPrediction& dense) const {
  const int64_t count = std::min(num_queries_, tokens_BLW.size(1));
  const at::Tensor score_BL = best_score(dense.logits.detach(), is_focal_);
  const at::Tensor best_BQ1 = std::get<1>(at::topk(score_BL, count, 1)).unsqueeze(-1);
  return {tokens_BLW.gather(1, best_BQ1.expand({-1, -1, width_})),
          logits_of(dense.boxes.detach().gather(1, best_BQ1.expand({-1, -1, 4})))};
}

DetectionPredictions DetectionHead::forward(const at::Tensor& tokens_BLD,
                                            const at::Tensor& positions) const {
  const at::Tensor tokens_BLW = input_->forward(tokens_BLD);
  const at::Tensor positions_L2 =
      exact(positions.to(tokens_BLW.device(), ops::statistics_type(tokens_BLW.scalar_type())));
  DetectionPredictions out;
  Queries queries;
  if (dense_) {
    out.final = dense_prediction(tokens_BLW, positions_L2);
    if (blocks_.empty()) return out;
    queries = best_tokens(tokens_BLW, out.final);
    out.earlier.push_back(out.final);
  } else {
    queries = learned_queries(tokens_BLW.size(0));
  }
  const at::Tensor places_LW = waves(positions_L2, width_).to(tokens_BLW.scalar_type());
  const Memory memory{tokens_BLW + places_LW, tokens_BLW, positions_L2};
  at::Tensor x_BQW = queries.contents_BQW, places_BQ4 = queries.places_BQ4;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (i > 0) out.earlier.push_back(out.final);
    const at::Tensor boxes_BQ4 = at::sigmoid(places_BQ4);
    x_BQW = blocks_[i]->forward(x_BQW, place_->forward(boxes_BQ4, x_BQW.scalar_type()),
                                boxes_BQ4.detach(), memory);
    out.final = layers_->forward(norm_->forward(x_BQW), places_BQ4);
    // A block learns to correct its own box, not the boxes before it.
    places_BQ4 = logits_of(out.final.boxes.detach());
  }
  return out;
}

double DetectionHead::train_flops(int64_t tokens) const {
  const auto W = static_cast<double>(width_), L = static_cast<double>(tokens);
  const double Q =
      static_cast<double>(std::min<int64_t>(num_queries_, dense_ ? tokens : num_queries_));
  double products = L * static_cast<double>(input_width_) * W;
  if (dense_) products += 2 * L * W * W;
  products += static_cast<double>(blocks_.size()) *
              (6 * Q * W * W + 2 * L * W * W + 2 * Q * Q * W + 2 * Q * L * W +
               2 * Q * W * static_cast<double>(mlp_hidden_) + 5 * Q * W * W);
  return 6 * products;
}

at::Tensor grid_places(at::IntArrayRef grid) {
  VT_CHECK(grid.size() == 2, "[detection] a grid must have 2 sides but has {}", grid.size());
  const at::Tensor places = at::empty({grid[0] * grid[1], 2}, at::kFloat);
  float* out = places.mutable_data_ptr<float>();
  for (int64_t row = 0; row < grid[0]; ++row)
    for (int64_t column = 0; column < grid[1]; ++column) {
      *out++ =
          static_cast<float>((static_cast<double>(column) + 0.5) / static_cast<double>(grid[1]));
      *out++ = static_cast<float>((static_cast<double>(row) + 0.5) / static_cast<double>(grid[0]));
    }
  return places;
}

InitialRule with_detection_head(InitialRule backbone, std::string prefix,
                                const config::Model& options) {
  const bool is_focal = options.detection.class_loss == "focal";
  return [=](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (!name.starts_with(prefix)) return backbone(name, parameter);
    const std::string own = name.substr(prefix.size());
    if (own == "query_places" || own.ends_with(".reach")) return {Fill::keep};
    if (own == "query_contents") return {Fill::normal, 1.0};
    if (is_focal && own.ends_with("class.bias"))
      return {Fill::constant, std::log(kFirstProbability / (1 - kFirstProbability))};
    if (own.ends_with("bias") || own.ends_with("box.fc3.weight")) return {Fill::zeros};
    if (parameter.dim() == 1) return {Fill::ones};
    const auto sum = static_cast<double>(parameter.size(0) + parameter.size(1));
    return {Fill::uniform, std::sqrt(6.0 / sum)};
  };
}

}  // namespace vitrail::models
