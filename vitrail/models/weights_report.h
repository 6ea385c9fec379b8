#pragma once
/// The refusal of a load that does not match.

#include "vitrail/models/weights.h"

namespace vitrail::models {

/// throws CheckpointError, one line with every tensor that did not match and the settings that would accept it.
/// adapted: model.weights.adapt was already tried.
void check_complete(const LoadReport& report, bool adapted);

}  // namespace vitrail::models
