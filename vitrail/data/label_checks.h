#pragma once
/// What models ask of the labels that lists, archives and tables hold.

#include <cstdint>
#include <string>

#include "vitrail/config/recipe.h"

namespace vitrail::data {

/// True for a vit, or a rat with that head, that learns a class per image.
bool classifies(const config::Model& model);

/// throws   DataError starting with `where` unless a label may be learnt by the model: 0 or more,
///          and below model.num_classes for models that learn classes of images.
void check_label(int64_t label, const config::Model& model, const std::string& where);

/// throws   ConfigError unless model.image_size has the two sides of an image.
void require_two_sides(const config::Source& source, const config::Model& model);

}  // namespace vitrail::data
