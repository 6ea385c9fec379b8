#pragma once
/// COCO's instances files: images, boxes and categories as JSON.
///
/// Format   https://cocodataset.org/#format-data: `images` (id, file_name, width, height),
///          `annotations` (image_id, category_id, bbox [x, y, width, height], iscrowd),
///          `categories` (id, name). All other keys are ignored.
/// Errors   DataError naming the file, the list and the place in it.
/// Memory   at most 4 times the file's size; for files with polygons about 100 bytes an annotation.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/data/reader.h"

namespace vitrail::data {

struct CocoImage {
  int64_t id = 0;
  std::string file;
  int64_t width = 0, height = 0;
  int64_t first_box = 0, num_boxes = 0;
};

struct CocoAnnotations {
  std::vector<CocoImage> images;         // in natural order of their files
  std::vector<LabelledBox> boxes;        // image after image, in the order of the file
  std::vector<std::string> class_names;  // categories in the order of their ids
  int64_t max_boxes = 0;
  int64_t crowds = 0;  // annotations of groups, left out
  int64_t empty = 0;   // boxes without extent inside their image, left out
};

/// Boxes are cut at the image's edges. Every category is a class, also one without boxes.
CocoAnnotations parse_coco(std::string_view text, const std::string& name);

}  // namespace vitrail::data
