#pragma once
/// The manifest of the reader image_list: which images there are, and what is known of each.
///
/// Format   CSV (.csv; .tsv with tabs) with a header row; a JSON list of objects (.json); or a JSON
///          object a line (.jsonl, .ndjson). Columns or keys: path or image; label (a whole number
///          or a class name); mask (a path); value, or value0, value1, ... (numbers; in JSON value
///          may be a list). Others are ignored.
/// Errors   DataError naming the file and the line, or in JSON the place in the list.
/// Memory   about 200 bytes an image and its paths, which is at most 150 times the text.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::data {

struct ListedImage {
  std::string path, mask;  // as written
  int64_t label = -1;
  std::string where;  // "train.csv:17", for messages
};

struct Manifest {
  std::vector<ListedImage> images;
  std::vector<std::string> class_names;  // sorted by their bytes; empty when labels are numbers
  int64_t num_values = 0;                // of every image
  std::vector<float> values;             // [images, num_values]
  bool has_labels = false, has_masks = false;
  std::string keys;  // columns of the first row or object, for messages
};

/// `name` is the file's name, whose end says which format it is. Every image has a label or none
/// has; likewise masks and values.
Manifest parse_image_manifest(std::string_view text, const std::string& name);

}  // namespace vitrail::data
