#pragma once
/// A tree of values into a Recipe: types, words, unknown keys.

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"
#include "vitrail/config/recipe.h"

namespace vitrail::config {

/// Reads `root`, a map of sections. What cannot be read keeps its default and is added to
/// `problems`. Rules that span fields are not judged here.
ResolvedRecipe read_recipe(const Node& root, Problems& problems);

}  // namespace vitrail::config
