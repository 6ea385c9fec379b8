#pragma once
/// Applies a trained model to files.

#include <cstdint>
#include <string>

#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"

namespace vitrail::train {

struct PredictOptions {
  std::string weights;  // safetensors file, checkpoint folder or run folder; empty = newest valid
                        // checkpoint of the run
  std::string input;   // an image or a folder of images; unetr, sap: what the source's reader reads
  std::string output;  // vit: CSV file; mae, unetr, sap: folder
  comm::Launch launch;
};

/// vit: one CSV row an image: file, class, name, probability, then the five best as class_k,
/// name_k, probability_k; with model.loss mse file, value0, value1, ...
/// mae: NAME-{original,masked,reconstruction,pasted}.png for each image; predictions of leaves are
/// pasted to their places. unetr, sap: masks, see train/predict_masks.h.
/// Every file appears whole or not at all. Returns the number of images.
/// Errors   DataError naming a file that cannot be read; CheckpointError for the weights.
int64_t predict_files(const config::ResolvedRecipe& resolved, const PredictOptions& options);

}  // namespace vitrail::train
