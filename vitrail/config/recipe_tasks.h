#pragma once
/// The recipe's sections `model.rat` and `model.detection`. See recipe.h for how fields are described.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/choice.h"

namespace vitrail::config {

/// Resolution-aware transformer: tokens of several scales, grouped in space block by block.
struct Rat {
  Choice head{"segmentation", {"segmentation", "classification", "detection"}};
  std::vector<double> scales{1.0, 0.5, 0.25};
  int64_t proj_kernel = 7;
  std::vector<std::string> attention{"dense"};
  int64_t kernel = 7;
  std::vector<int64_t> stride;
  int64_t neighbourhood = 3;
  int64_t iterations = 3;
  Choice position{"rose", {"rose", "rope", "absolute", "none"}};
  double rotary_ratio = 0.5;
  Choice frequency_scaling{"sqrt", {"none", "linear", "sqrt", "adaptive"}};
  Choice axis_frequencies{"shifted", {"shifted", "equal"}};
  bool learnable_rose = true;
  double jitter = 0.02;
  Choice spacing_scaling{"identity", {"none", "identity", "log", "rope"}};
  Choice spacing{"scales", {"scales", "unit"}};
  Choice temperature{"head", {"head", "width"}};
  Choice heads{"transposed", {"transposed", "viewed"}};
  Choice maps{"streamed", {"streamed", "stored"}};
  int64_t workspace_mib = 256;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("head", self.head, "what is predicted from the tokens of the finest scale");
    visit("scales", self.scales, "the image enters at these shares of image_size, finest first");
    visit("proj_kernel", self.proj_kernel,
          "edge of the convolution that makes one token of every pixel");
    visit("attention", self.attention,
          "grouping attention, dense or sparse; one word for all blocks or one for each");
    visit("kernel", self.kernel, "edge of the strided convolution that starts the groups");
    visit("stride", self.stride,
          "cells a group stands for along an axis; one number for all blocks or one for each; "
          "empty = max(1, kernel / 2)");
    visit("neighbourhood", self.neighbourhood,
          "sparse: cells along an axis that a group attends to");
    visit("iterations", self.iterations, "refinements of the groups in a block");
    visit(
        "position", self.position,
        "rotary positions with learned (rose) or fixed (rope, unit spacing) frequencies, a sin-cos "
        "table (absolute), or none");
    visit("rotary_ratio", self.rotary_ratio, "share of the heads that is rotated");
    visit("frequency_scaling", self.frequency_scaling,
          "base of the frequencies: rope_theta, or its power 1 / d, 1 / sqrt(d) or 2 / (d * "
          "embed_dim) for d axes");
    visit("axis_frequencies", self.axis_frequencies,
          "each axis goes through the frequencies from another place on, or equal: all axes alike, "
          "so that cells of one anti-diagonal share their angles, as in the first program");
    visit("learnable_rose", self.learnable_rose,
          "learn the frequencies, their logarithm jittered at the start");
    visit("jitter", self.jitter, "standard deviation of that jitter");
    visit("spacing_scaling", self.spacing_scaling,
          "learned factor a * spacing^b + c * log(spacing / d) of the positions: its start; none: "
          "the spacing itself");
    visit("spacing", self.spacing,
          "distance of neighbouring cells: by the scale, or 1 at every scale");
    visit("temperature", self.temperature,
          "start of the grouping's learned factor: 1 / sqrt(head width) or 1 / sqrt(embed_dim)");
    visit("heads", self.heads,
          "how groups read values: each head its own part, or viewed: heads and tokens mixed, as "
          "in the first program");
    visit("maps", self.maps,
          "attention maps of the grouping: streamed in pieces and never kept, or stored whole");
    visit("workspace_mib", self.workspace_mib,
          "maps streamed: memory of the largest piece, in MiB");
  }
  bool operator==(const Rat&) const = default;
};

/// Boxes by queries and matching.
struct Detection {
  Choice queries{"learned", {"learned", "grid"}};
  int64_t num_queries = 100;
  std::optional<int64_t> decoder_embed_dim;
  int64_t decoder_depth = 3;
  int64_t decoder_num_heads = 8;
  Choice matching{"hungarian", {"hungarian", "index"}};
  Choice class_loss{"cross_entropy", {"cross_entropy", "focal"}};
  double no_object_weight = 0.1;
  double focal_alpha = 0.25;
  double class_weight = 1.0;
  double l1_weight = 5.0;
  double giou_weight = 2.0;
  bool auxiliary_losses = true;
  int64_t auxiliary_matches = 1;
  double min_score = 0.05;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("queries", self.queries,
          "where queries begin: learned contents and places, or the tokens (each predicts a box at "
          "its own place) of "
          "highest score");
    visit("num_queries", self.num_queries, "queries, each predicts one box or none");
    visit("decoder_embed_dim", self.decoder_embed_dim,
          "width of queries and decoder; null = model.embed_dim");
    visit("decoder_depth", self.decoder_depth,
          "blocks of self-attention, cross-attention and MLP over the queries");
    visit("decoder_num_heads", self.decoder_num_heads, "heads of these blocks");
    visit("matching", self.matching,
          "which prediction answers for which box: least cost, or the first for the first");
    visit("class_loss", self.class_loss,
          "cross-entropy with a class for no object, or sigmoid focal loss");
    visit("no_object_weight", self.no_object_weight,
          "cross_entropy: weight of the class for no object");
    visit("focal_alpha", self.focal_alpha,
          "focal: weight of the boxes' classes against 1 - this of all others; the power is "
          "model.focal_gamma");
    visit("class_weight", self.class_weight,
          "weight of the class term, in the loss and in the matching");
    visit("l1_weight", self.l1_weight, "weight of the distance of boxes, likewise");
    visit("giou_weight", self.giou_weight,
          "weight of 1 - generalised intersection over union, likewise");
    visit("auxiliary_losses", self.auxiliary_losses,
          "the loss is also taken after every decoder block but the last, and of all tokens with "
          "queries: grid");
    visit("auxiliary_matches", self.auxiliary_matches,
          "predictions that answer for each box in the auxiliary losses; above 1 teaches the "
          "backbone more densely");
    visit("min_score", self.min_score, "predict and pictures leave out boxes of a lower score");
  }
  bool operator==(const Detection&) const = default;
};

}  // namespace vitrail::config
