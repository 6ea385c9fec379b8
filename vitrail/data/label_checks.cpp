#include "vitrail/data/label_checks.h"

#include "vitrail/core/error.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

bool classifies(const config::Model& model) {
  const bool can =
      model.kind == "vit" || (model.kind == "rat" && model.rat.head == "classification");
  return can && model.num_classes > 0 && !regresses(model);
}

void check_label(int64_t label, const config::Model& model, const std::string& where) {
  VT_REQUIRE(DataError, label >= 0, "[data] {}: a class must be 0 or more but is {}", where, label);
  const bool is_learnt = classifies(model) || (model.kind == "diffusion" && model.num_classes > 0);
  VT_REQUIRE(DataError, !is_learnt || label < model.num_classes,
             "[data] {}: a class must be below model.num_classes = {} but is {}", where,
             model.num_classes, label);
}

void require_two_sides(const config::Source& source, const config::Model& model) {
  VT_REQUIRE(
      ConfigError, model.image_size.size() == 2,
      "[data] source '{}': the reader {} reads images of 2 sides but model.image_size has {}",
      source_name(source), source.reader.value, model.image_size.size());
}

}  // namespace vitrail::data
