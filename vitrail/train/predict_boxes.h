#pragma once
/// Found boxes as text.

#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/models/metrics_detection.h"

namespace vitrail::train {

/// {"file": ..., "width": W, "height": H, "boxes": [{"class": 0, "name": "RBC", "score": 0.93, "box": [x0, y0, x1, y1]}]}
/// in one line: `found` in pixels of the model's image become pixels of the file, whose resizing and central crop are
/// undone; a class without a name is named by its number.
/// throws   DataError when the file's header cannot be read.
std::string box_record(const std::string& file, const std::vector<models::FoundBox>& found,
                       const config::Source& source, const config::Model& model,
                       const std::vector<std::string>& names);

/// A JSON list of such lines, one a row; `records` end with a newline each.
std::string box_list(const std::string& records);

}  // namespace vitrail::train
