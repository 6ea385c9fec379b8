#pragma once
/// A DETR-style head over any backbone: queries look at its tokens and each says one box and its class.
///
///   x <- x + self(norm1(x));  x <- x + cross(norm2(x), tokens);  x <- x + mlp(norm3(x))
/// with the query's place added to queries and keys of `self` and to the queries of `cross`, and a token's place to the
/// keys of `cross`.
/// Paper    Carion et al. 2020, arXiv:2005.12872; places as boxes that every block corrects: Liu et al. 2022,
///          arXiv:2201.12329; queries out of the tokens: Zhu et al. 2021, arXiv:2010.04159 (two-stage); attention that
///          falls off with the distance to the query's box: Gao et al. 2021, arXiv:2101.07448.
/// Differs  pre-norm; no dropout; class and box layers serve all blocks. Queries `grid`: every token first says a box at
///          its own place (the dense prediction); the queries are the num_queries tokens of highest score, with their
///          contents and boxes, or without decoder blocks all tokens.
/// Shapes   B batch, L tokens, W width of the decoder, Q queries, C classes, K = C + 1 logits (focal: C), N heads.
/// Names    input.{weight,bias}, place.{fc1,fc2}; blocks.i.{norm1,self.*,norm2,cross.*,norm3,mlp.*,
///          reach [N]}, of attention {q,k,v,proj}; norm; class.{weight,bias}, box.{fc1,fc2,fc3}; learned query_contents [Q, W],
///          query_places [Q, 4]; grid dense_norm, dense_class, dense_box.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/init.h"
#include "vitrail/nn/linear.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/norm.h"

namespace vitrail::models {

/// One box and its class logits for each query.
struct BoxPrediction {
  at::Tensor logits;  // [B, Q, K], fp32 (fp64 stays)
  at::Tensor
      boxes;  // [B, Q, 4]: centre x, centre y, width, height as shares of the image, likewise
};

struct DetectionPredictions {
  BoxPrediction final;
  std::vector<BoxPrediction>
      earlier;  // of the blocks before the last, and of all tokens; first ones first
};

class QueryBlock;
class BoxLayers;
class PlaceMlp;

class DetectionHead : public nn::Module {
 public:
  /// `options`: detection, num_classes, embed_dim, mlp_ratio and the norm; `input_width`: of the tokens.
  /// throws ConfigError when the options contradict each other.
  DetectionHead(const config::Model& options, int64_t input_width);
  ~DetectionHead() override;

  /// tokens_BLD and where they lie: positions_L2, centre x and centre y of each as shares of the image, fp32.
  DetectionPredictions forward(const at::Tensor& tokens_BLD, const at::Tensor& positions_L2) const;

  /// Forward and backward for one sample of `tokens` tokens, multiply-adds counting two.
  double train_flops(int64_t tokens) const;

 private:
  struct Queries {
    at::Tensor contents_BQW, places_BQ4;  // places as logits, fp32
  };
  Queries learned_queries(int64_t batch) const;
  Queries best_tokens(const at::Tensor& tokens_BLW, const BoxPrediction& dense) const;
  BoxPrediction dense_prediction(const at::Tensor& tokens_BLW,
                                 const at::Tensor& positions_L2) const;

  int64_t width_, num_queries_, num_heads_;
  bool is_focal_;
  at::Tensor query_contents_, query_places_;  // undefined with queries: grid
  std::shared_ptr<nn::Linear> input_;
  std::shared_ptr<PlaceMlp> place_;
  std::vector<std::shared_ptr<QueryBlock>> blocks_;
  std::shared_ptr<nn::Norm> norm_, dense_norm_;
  std::shared_ptr<BoxLayers> layers_, dense_;  // of the blocks; of the tokens
  int64_t input_width_, mlp_hidden_;
};

/// Centre x and centre y of each cell of a grid [rows, columns] as shares of the image, in raster order: fp32 [L, 2].
at::Tensor grid_places(at::IntArrayRef grid);

/// `backbone`, but for parameters that begin with `prefix`, which are those of a head with these options: Xavier-uniform
/// matrices, zero biases, unit norms; the last box layer zero; with focal loss every class begins at a probability of
/// 0.01; queries normal(1) at places spread over the image.
InitialRule with_detection_head(InitialRule backbone, std::string prefix,
                                const config::Model& options);

}  // namespace vitrail::models
