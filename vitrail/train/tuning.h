#pragma once
/// Algorithms of the fused engine's matrix products on a GPU: timed once, kept in a file for the next start.

#include <string>

#include <c10/core/Device.h>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"

namespace vitrail::train {

class Tuning {
 public:
  /// Reads the table that train.tuning_table names, else `table` (empty: none). Does nothing unless the model's blocks run
  /// fused on a GPU. throws ConfigError when the folder of train.tuning_table does not exist.
  Tuning(models::Model& model, const config::Train& options, at::Device device,
         const std::string& table);

  /// Once a step has shown the shapes: times those that the table lacks, for train.tune_seconds in all, and says what was
  /// chosen. Only the first call does something, also when shapes change later. `writes`: keeps the choices in the table;
  /// one rank of a run.
  void after_step(bool writes);

 private:
  models::Model& model_;
  at::Device device_;
  double seconds_;
  std::string table_;
  bool is_due_;
};

}  // namespace vitrail::train
