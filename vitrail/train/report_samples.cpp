#include "vitrail/train/report_samples.h"

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/train/pictures.h"

namespace vitrail::train {

namespace {

constexpr int64_t kSlicesOfAVolume = 3;

std::string class_name(const SplitResult& result, int64_t label) {
  return label >= 0 && label < static_cast<int64_t>(result.class_names.size())
             ? result.class_names[label]
             : std::to_string(label);
}

Verdict verdict(const Example& example, const SplitResult& result, const config::Source& source) {
  return {png_bytes(Display(example.image, source)(example.image)),
          class_name(result, example.label), class_name(result, example.predicted),
          example.output[example.predicted].item<double>(), example.label == example.predicted};
}

/// One row a picture, or several of a volume: one a slice.
void add_rows(const std::vector<at::Tensor>& pictures, PictureTable& table) {
  std::vector<std::vector<at::Tensor>> columns;
  for (const at::Tensor& picture : pictures)
    columns.push_back(depth_slices(picture, kSlicesOfAVolume));
  for (size_t slice = 0; slice < columns.front().size(); ++slice) {
    std::vector<std::string>& row = table.rows.emplace_back();
    for (const std::vector<at::Tensor>& column : columns) row.push_back(png_bytes(column[slice]));
  }
}

template <class Box>
std::vector<DrawnBox> drawn(const std::vector<Box>& boxes) {
  std::vector<DrawnBox> list;
  for (const Box& box : boxes) list.push_back({box.corners, box.label});
  return list;
}

std::vector<at::Tensor> box_pictures(const Example& example, const config::Source& source) {
  const at::Tensor image = as_rgb(Display(example.image, source)(example.image).clamp(0, 1));
  return {with_boxes(image, drawn(example.true_boxes)),
          with_boxes(image, drawn(example.found_boxes))};
}

/// "RBC light blue, WBC green"
std::string legend(const SplitResult& result, const config::Model& model) {
  std::string text;
  for (int64_t label = 0; label < std::min<int64_t>(model.num_classes, 7); ++label)
    text += fmt::format("{}{} {}", label > 0 ? ", " : "", class_name(result, label),
                        class_color(label).name);
  return model.num_classes > 7 ? text + ", ..." : text;
}

}  // namespace

void add_examples(const SplitResult& result, const config::Source& source,
                  const config::Model& model, ReportData& data) {
  PictureTable hidden{"Held-out samples: hidden patches predicted",
                      {"original", "masked", "reconstruction", "visible + predicted"},
                      {}};
  PictureTable masks{"Held-out samples: predicted classes",
                     {"image", "true classes", "predicted classes", "where they differ"},
                     {}};
  PictureTable boxes{"Held-out samples: boxes",
                     {"true boxes: " + legend(result, model),
                      fmt::format("predicted, score at least {}", model.detection.min_score)},
                     {}};
  for (const Example& example : result.examples) {
    if (example.has_boxes)
      add_rows(box_pictures(example, source), boxes);
    else if (example.truth.defined())
      add_rows(mask_pictures(example.image, example.truth, example.predicted_mask, source,
                             example.leaves)
                   .all(),
               masks);
    else if (example.mask.defined())
      add_rows(masked_pictures(example.image, example.output, example.mask, model, source,
                               example.leaves)
                   .all(),
               hidden);
    else
      data.verdicts.push_back(verdict(example, result, source));
  }
  for (PictureTable* table : {&hidden, &masks, &boxes})
    if (!table->rows.empty()) data.pictures.push_back(std::move(*table));
}

}  // namespace vitrail::train
