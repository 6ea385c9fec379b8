#pragma once
/// Boxes of annotation files as the readers give them.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/data/reader.h"

namespace vitrail::data {

/// x0, y0, x1, y1 cut at the edges of an image of these sides, rounded to float at the end.
LabelledBox box_inside(const std::array<double, 4>& corners, int64_t width, int64_t height,
                       int64_t label);

bool has_extent(const LabelledBox& box);

/// throws   DataError naming both unless the image has the size that its annotation says.
void check_annotated_size(const std::vector<int64_t>& sides, const std::string& image,
                          int64_t width, int64_t height, const std::string& annotation);

}  // namespace vitrail::data
