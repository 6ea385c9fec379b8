#pragma once
/// "key.path=value" from the command line, applied to the tree before it is read.

#include <string>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"

namespace vitrail::config {

/// Sets one value. The value is YAML in flow form; a map or list replaces what was there. Missing
/// sections are made; a list grows by at most one element, at its end; an index into a list that
/// the recipe leaves at its default changes a copy of that default.
/// `source`: who says so; empty = the command line.
void apply_override(Node& root, const std::string& override_text, Problems& problems,
                    const std::string& source = "");

}  // namespace vitrail::config
