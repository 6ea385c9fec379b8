#include "vitrail/train/report_samples.h"

#include "vitrail/train/pictures.h"

namespace vitrail::train {

namespace {

std::string class_name(const SplitResult& result, int64_t label) {
  return label >= 0 && label < static_cast<int64_t>(result.class_names.size())
             ? result.class_names[label]
             : std::to_string(label);
}

Verdict verdict(const Example& example, const SplitResult& result, const config::Source& source) {
  return {png_bytes(denormalised(example.image, source)), class_name(result, example.label),
          class_name(result, example.predicted), example.output[example.predicted].item<double>(),
          example.label == example.predicted};
}

}  // namespace

void add_examples(const SplitResult& result, const config::Source& source,
                  const config::Model& model, ReportData& data) {
  for (const Example& example : result.examples) {
    if (!example.mask.defined()) {
      data.verdicts.push_back(verdict(example, result, source));
      continue;
    }
    Reconstruction reconstruction;
    const MaskedPictures pictures =
        masked_pictures(example.image, example.output, example.mask, model, source);
    for (const at::Tensor& picture : pictures.all())
      reconstruction.pictures.push_back(png_bytes(picture));
    data.reconstructions.push_back(std::move(reconstruction));
  }
}

}  // namespace vitrail::train
