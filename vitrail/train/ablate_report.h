#pragma once
/// The page of a study: one table, differences to the controls, curves. Self-contained.

#include <string>

#include "vitrail/train/ablate_table.h"

namespace vitrail::train {

std::string study_page(const StudyPlan& plan, const StudyResults& results);

}  // namespace vitrail::train
