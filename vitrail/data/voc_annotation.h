#pragma once
/// One annotation file of Pascal VOC: the objects of an image as XML.
///
/// Format   <annotation> with <filename>, <size> (width, height) and any number of <object> (name,
///          bndbox: xmin, ymin, xmax, ymax). Everything else (difficult, truncated, parts) is
///          ignored. VOC counts pixels from 1 and its last pixel belongs to the box; here a box
///          is [xmin - 1, xmax) x [ymin - 1, ymax).
/// Errors   DataError naming the file and the line.
/// Memory   at most 128 times the text's size, which is limited to 4 MiB.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::data {

struct VocObject {
  std::string name;
  std::array<double, 4> corners{};  // x0, y0, x1, y1, from 0, the high ones not included
};

struct VocAnnotation {
  std::string filename;           // may be empty
  int64_t width = 0, height = 0;  // 0 = the file does not say
  std::vector<VocObject> objects;
};

VocAnnotation parse_voc(std::string_view text, const std::string& name);

}  // namespace vitrail::data
