#pragma once
// Small models that find boxes, and batches of random boxes for them.

#include <algorithm>
#include <string>

#include "tests/models/tiny_models.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {

inline config::Model tiny_detection(const char* queries = "learned",
                                    const char* class_loss = "cross_entropy") {
  config::Model options = tiny("vit_detection");
  options.class_token = false, options.loss.value = "boxes", options.num_classes = 3;
  options.detection.queries.value = queries, options.detection.class_loss.value = class_loss;
  options.detection.num_queries = 5, options.detection.decoder_depth = 2;
  options.detection.decoder_num_heads = 2, options.detection.auxiliary_matches = 2;
  return options;
}

/// Adds up to `most` boxes to each sample, none to every third; functions of the sample, whatever its batch.
inline void add_boxes(data::Batch& batch, const config::Model& options, int64_t most = 3,
                      uint16_t layer = 30) {
  const int64_t B = batch.size();
  const at::Tensor draws =
      ops::uniform({23, core::Stream::test, 0, layer}, batch.sample_ids, most * 5)
          .view({B, most, 5});
  batch.boxes = at::zeros({B, most, 4});
  batch.box_classes = at::zeros({B, most}, at::kLong).sub(1);
  const auto height = static_cast<double>(options.image_size[0]);
  const auto width = static_cast<double>(options.image_size[1]);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t m = 0; m < most; ++m) {
      const int64_t id = batch.sample_ids[b].item<int64_t>();
      if (id % 3 == 2 || m > id % most) continue;
      const auto draw = [&](int64_t k) { return draws[b][m][k].item<double>(); };
      const double x = draw(0) * width * 0.6, y = draw(1) * height * 0.6;
      batch.boxes[b][m][0] = x, batch.boxes[b][m][1] = y;
      batch.boxes[b][m][2] = x + (0.1 + 0.3 * draw(2)) * width;
      batch.boxes[b][m][3] = y + (0.1 + 0.3 * draw(3)) * height;
      batch.box_classes[b][m] = std::min<int64_t>(
          static_cast<int64_t>(draw(4) * static_cast<double>(options.num_classes)),
          options.num_classes - 1);
    }
}

inline data::Batch detection_batch(const config::Model& options, int64_t size) {
  data::Batch batch = batch_for(options, size);
  batch.label = at::Tensor();
  add_boxes(batch, options);
  return batch;
}

}  // namespace vitrail::models
