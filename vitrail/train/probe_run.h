#pragma once
/// Probes of a run's frozen encoder: how well its features tell classes apart.

#include <string>
#include <vector>

#include "vitrail/train/evaluate.h"

namespace vitrail::train {

/// What `vitrail eval --probe` does: features of data.sources (without augmentation) teach a probe
/// that is scored on each of eval.sources, or on the one that options.split names. `kind` is "linear" or "knn" (models/probe.h). Every rank
/// calls it and gets the same result.
/// Features Model::features: the mean of all normalised patch tokens, of a whole image.
/// throws   ConfigError: no sources, a source without classes, a model whose features are not those of
///          an image as it is (diffusion).
std::vector<SplitResult> probe_recipe(const config::ResolvedRecipe& resolved,
                                      comm::Communicator& world, const std::string& kind,
                                      const EvaluateOptions& options);

}  // namespace vitrail::train
