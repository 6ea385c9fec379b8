#pragma once
/// How much a frozen encoder's features tell of the classes: nearest neighbours and a linear
/// classifier, both deterministic.
///
/// Shapes   N samples of D features, C classes.
/// Device   that of the features.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "vitrail/models/metrics.h"

namespace vitrail::models {

/// Features float [N, D] with their labels int64 [N]. Rows with label -1 count nowhere.
struct Features {
  at::Tensor x_ND, label_N;
};

struct NeighborOptions {
  int64_t k = 20;
  double temperature = 0.07;
};

/// The k nearest training rows by cosine similarity vote with exp(similarity / temperature). Of equal
/// similarities the lower row is nearer, of equal votes the lower class wins.
///
/// Returns  accuracy and, from six classes on, top5_accuracy over `test`. k above the number of
///          training rows means all of them.
/// Memory   similarities of 256 test rows at a time.
/// Paper    Wu et al. 2018, arXiv:1805.01978; settings of DINO, Caron et al. 2021, arXiv:2104.14294.
/// throws   ConfigError: k below 1, temperature not above 0. DataError: no training row, a label not
///          below num_classes, a feature that is not finite. Error naming both shapes.
MetricList nearest_neighbor_probe(const Features& train, const Features& test, int64_t num_classes,
                                  const NeighborOptions& options = {});

struct LinearProbeOptions {
  /// Half the weight of the squared norm of the matrix beside the mean cross-entropy; the bias is
  /// free. scikit-learn's LogisticRegression(C) has l2 = 1 / (C N).
  double l2 = 1e-4;
  int64_t max_iterations = 500;
  double tolerance = 1e-6;  // largest element of the gradient at which to stop
};

struct LinearProbe {
  MetricList metrics;    // accuracy, top5_accuracy from six classes on, loss: of the test rows
  double objective = 0;  // mean cross-entropy of the training rows + l2 / 2 |W|^2
  double gradient = 0;   // its largest element
  int64_t iterations = 0;
  bool converged = false;
  at::Tensor weight_CD, bias_C;    // fp64, for standardised features
  at::Tensor mean_D, deviation_D;  // of the training rows; a constant feature has deviation 1
};

/// Multinomial logistic regression on features standardised by the training rows: the optimum of a
/// convex objective, found by L-BFGS over all rows in fp64, so that no learning rate has to be tuned.
///
/// Paper    Liu & Nocedal 1989, Mathematical Programming 45; the linear probe of He et al. 2022,
///          arXiv:2111.06377, without its augmentation.
/// Memory   the training features once more in fp64.
/// throws   ConfigError: l2 below 0, fewer than 1 iteration; otherwise as nearest_neighbor_probe.
LinearProbe linear_probe(const Features& train, const Features& test, int64_t num_classes,
                         const LinearProbeOptions& options = {});

}  // namespace vitrail::models
