#include "vitrail/data/annotated_boxes.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::data {

LabelledBox box_inside(const std::array<double, 4>& corners, int64_t width, int64_t height,
                       int64_t label) {
  const auto inside = [](double value, int64_t side) {
    return static_cast<float>(std::clamp(value, 0.0, static_cast<double>(side)));
  };
  return {inside(corners[0], width), inside(corners[1], height), inside(corners[2], width),
          inside(corners[3], height), label};
}

bool has_extent(const LabelledBox& box) { return box.x1 > box.x0 && box.y1 > box.y0; }

void check_annotated_size(const std::vector<int64_t>& sides, const std::string& image,
                          int64_t width, int64_t height, const std::string& annotation) {
  VT_REQUIRE(DataError, sides.size() == 2 && sides[0] == height && sides[1] == width,
             "[data] {}: must have {} x {} pixels (height x width) as {} says but has {}", image,
             height, width, annotation, describe(sides));
}

}  // namespace vitrail::data
