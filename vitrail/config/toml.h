#pragma once
/// TOML text to a Node: the part of it that settings use.

#include <string>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"

namespace vitrail::config {

/// Reads [tables], key = value with bare, quoted and dotted keys, strings on one line, numbers, booleans, arrays (over
/// several lines too) and comments. Arrays of tables, inline tables, dates and texts over several lines are problems; so
/// are keys given twice. What could be read is returned.
Node parse_toml(const std::string& text, const std::string& name, Problems& problems);

}  // namespace vitrail::config
