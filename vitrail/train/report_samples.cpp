#include "vitrail/train/report_samples.h"

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

}  // namespace

void add_examples(const SplitResult& result, const config::Source& source,
                  const config::Model& model, ReportData& data) {
  PictureTable hidden{"Held-out samples: hidden patches predicted",
                      {"original", "masked", "reconstruction", "visible + predicted"},
                      {}};
  PictureTable masks{"Held-out samples: predicted classes",
                     {"image", "true classes", "predicted classes", "where they differ"},
                     {}};
  for (const Example& example : result.examples) {
    if (example.truth.defined())
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
  for (PictureTable* table : {&hidden, &masks})
    if (!table->rows.empty()) data.pictures.push_back(std::move(*table));
}

}  // namespace vitrail::train
