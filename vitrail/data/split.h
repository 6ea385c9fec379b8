#pragma once
/// source.split as places of a list.

#include <cstdint>
#include <string>

#include "vitrail/config/recipe.h"

namespace vitrail::data {

struct SplitRange {
  int64_t first = 0, last = 0;
};

/// [llround(start * size), llround(end * size)); all without a split.
/// throws   ConfigError: not 0 <= start < end <= 1. DataError naming `path`: an empty part.
SplitRange split_range(const config::Source& source, int64_t size, const std::string& path);

}  // namespace vitrail::data
