#include "vitrail/train/predict_boxes.h"

#include <algorithm>
#include <cmath>

#include "vitrail/data/image_files.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

/// Hundredths of a pixel say all that there is to say.
double rounded(double value, double parts) { return std::round(value * parts) / parts; }

/// From pixels of the model's image along one axis to those of the file.
struct Axis {
  double shift, scale, side;
  double operator()(double value) const { return std::clamp((value + shift) * scale, 0.0, side); }
};

Axis axis_of(const config::Source& source, const config::Model& model, size_t axis, int64_t side) {
  const int64_t target = model.image_size[axis];
  const int64_t resized = source.resize.empty() ? target : source.resize[axis];
  return {static_cast<double>((resized - target) / 2),
          static_cast<double>(side) / static_cast<double>(resized), static_cast<double>(side)};
}

}  // namespace

std::string box_record(const std::string& file, const std::vector<models::FoundBox>& found,
                       const config::Source& source, const config::Model& model,
                       const std::vector<std::string>& names) {
  const std::vector<int64_t> sides = data::image_file_shape(file).sides;
  const Axis axes[2] = {axis_of(source, model, 1, sides[1]), axis_of(source, model, 0, sides[0])};
  nlohmann::ordered_json boxes = nlohmann::ordered_json::array();
  for (const models::FoundBox& box : found) {
    nlohmann::ordered_json corners = nlohmann::ordered_json::array();
    for (size_t k = 0; k < 4; ++k) corners.push_back(rounded(axes[k % 2](box.corners[k]), 100));
    const auto known = static_cast<int64_t>(names.size());
    boxes.push_back({{"class", box.label},
                     {"name", box.label < known ? names[box.label] : std::to_string(box.label)},
                     {"score", rounded(box.score, 1e6)},
                     {"box", corners}});
  }
  const nlohmann::ordered_json record{
      {"file", file}, {"width", sides[1]}, {"height", sides[0]}, {"boxes", boxes}};
  // A file's name may be no text that JSON knows.
  return record.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string box_list(const std::string& records) {
  std::string text = "[\n";
  for (size_t i = 0; i < records.size(); ++i) {
    const bool is_inner_end = records[i] == '\n' && i + 1 < records.size();
    text += is_inner_end ? ",\n" : std::string(1, records[i]);
  }
  return text + "]\n";
}

}  // namespace vitrail::train
