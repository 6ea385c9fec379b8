#pragma once
/// Applies a trained model to files.

#include <cstdint>
#include <string>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"

namespace vitrail::train {

struct PredictOptions {
  std::string weights;  // safetensors file, checkpoint folder or run folder; empty = newest valid
                        // checkpoint of the run
  std::string input;   // an image or a folder of images; unetr, sap: what the source's reader reads
  std::string output;  // vit: CSV file; vit_detection: JSON file; mae, unetr, sap: folder
  comm::Launch launch;
  std::string version;  // of the program, compared between ranks
};

/// vit: one CSV row an image: file, class, name, probability, then the five best as class_k,
/// name_k, probability_k; with model.loss mse file, value0, value1, ...
/// vit_detection: a JSON list with a line for each image, see train/predict_boxes.h; boxes of a score of at least
/// model.detection.min_score.
/// mae: NAME-{original,masked,reconstruction,pasted}.png for each image; predictions of leaves are
/// pasted to their places. unetr, sap: masks, see train/predict_masks.h.
/// Every file appears whole or not at all. Returns the number of images.
/// Ranks    each holds the whole model, whatever the recipe's layout, and takes every R-th batch of 64 images, or every
///          R-th file of unetr and sap; rank 0 writes the CSV or JSON file. The files are those of one rank, byte for byte
///          where all have equally many threads. Every rank calls it.
/// Errors   DataError naming a file that cannot be read; CheckpointError for the weights.
int64_t predict_files(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                      const PredictOptions& options);

}  // namespace vitrail::train
