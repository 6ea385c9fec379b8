#pragma once
/// Samples of the last evaluation as pictures for the report.

#include "vitrail/config/recipe.h"
#include "vitrail/train/evaluate.h"
#include "vitrail/train/report_data.h"

namespace vitrail::train {

/// Adds verdicts (vit) or tables of pictures (mae, segmentation, detection) from result.examples.
void add_examples(const SplitResult& result, const config::Source& source,
                  const config::Model& model, ReportData& data);

}  // namespace vitrail::train
