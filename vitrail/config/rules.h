#pragma once
/// Rules that a recipe must keep beyond the types of its fields.

#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::config {

struct Violation {
  std::vector<std::string> keys;  // the keys it is about, the one to blame first
  std::string text;
  std::vector<std::string> context;  // keys that it also takes into account; not shown
};

/// Ranges, divisibility, and what fits together. Safe for any values: products are formed only
/// inside checked ranges.
std::vector<Violation> violations(const Recipe& recipe);

/// What a recipe must hold to be trained: sources, a length, an objective.
std::vector<Violation> training_violations(const Recipe& recipe);

/// Collects violations; each function adds one line when its rule is broken.
class RuleBook {
 public:
  void add(std::vector<std::string> keys, std::string text, std::vector<std::string> context = {}) {
    found_.push_back({std::move(keys), std::move(text), std::move(context)});
  }
  /// Whole number within [low, high].
  bool within(const std::string& key, int64_t value, int64_t low, int64_t high);
  bool above(const std::string& key, double value, double low);
  bool at_least(const std::string& key, double value, double low);
  /// [0, 1)
  bool rate(const std::string& key, double value);
  std::vector<Violation> take() { return std::move(found_); }

 private:
  std::vector<Violation> found_;
};

/// unetr, sap and rat with that head give every pixel a class, or (not rat) with the loss mse real values.
bool segments(const Model& model);
/// model.loss mse with vit, unetr or sap: real values are learnt.
bool regresses(const Model& model);
/// vit_detection, and rat with that head, learn boxes.
bool detects(const Model& model);
/// mae, and diffusion in one of its forms, end in a second transformer.
bool has_transformer_decoder(const Model& model);

void check_model(const Model& model, RuleBook& rules);
/// Variables, aggregation, adaptive tokens.
void check_tokens(const Model& model, RuleBook& rules);
/// What one kind of model asks for; `countable`: the number of patches can be formed.
void check_kind(const Model& model, bool countable, RuleBook& rules);
/// model.detection of a model that finds boxes.
void check_detection(const Model& model, RuleBook& rules);
/// model.rat, and what its kind asks of other keys.
void check_rat(const Model& model, RuleBook& rules);
/// Layouts and engines that the kind rat does not have.
void check_rat_run(const Recipe& recipe, RuleBook& rules);
/// Of a block of the kind rat.
int64_t rat_stride(const Rat& rat, int64_t block);
bool rat_is_sparse(const Rat& rat, int64_t block);
/// Width, heads, positions and MLP of mae's and diffusion's second transformer.
void check_decoder(const Model& model, RuleBook& rules);

/// fp16's loss scale belongs to fp16.
void check_loss_scale(const Train& train, RuleBook& rules);
/// Warm-up and end of the schedule.
void check_schedule_form(const Schedule& schedule, RuleBook& rules);

/// Mesh, strategy, offload, and what tensor, sequence and pipeline ask of the model.
void check_parallel(const Recipe& recipe, RuleBook& rules);

/// train.decatt: which models, blocks and meshes it goes with.
void check_decatt(const Recipe& recipe, RuleBook& rules);

/// train.precision fp8 and train.fp8_weight_gradients: which engines, models and widths they go with.
void check_fp8(const Recipe& recipe, RuleBook& rules);

/// `section` is "data" or "eval"; `mixes`: a batch takes its samples from any of the sources.
void check_sources(const std::vector<Source>& sources, const std::string& section, bool mixes,
                   const Model& model, RuleBook& rules);
/// Labels of the form that the model's objective needs.
void check_objective_data(const std::vector<Source>& sources, const std::string& section,
                          const Model& model, RuleBook& rules);
/// Keys of a source that belong to some formats only.
void check_format(const Source& source, const std::string& path, const Model& model,
                  RuleBook& rules);
/// Formats whose files can have three sides.
bool reads_volumes(const Source& source);
/// Formats that name or hold their masks themselves.
bool holds_own_masks(const Source& source);
/// Formats that a classifier cannot learn from.
bool holds_no_classes(const Source& source);
/// region, slices, tile, overlap, random_crop: which parts of files are samples.
void check_windows(const Source& source, const std::string& path, const Model& model,
                   RuleBook& rules);

}  // namespace vitrail::config
