#pragma once
/// Sample and Batch: all that models know of data.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::data {

/// One image or volume as the model will see it, before batching.
struct Sample {
  at::Tensor image;    // float [C, H, W] or [C, D, H, W]
  int64_t label = -1;  // class; -1 = none
  at::Tensor mask;     // int64 [H, W] or [D, H, W], class of each pixel; undefined = none
  at::Tensor values;   // float [V] or [V, sides...], what is to be learnt; undefined = none
  int64_t index = -1;  // global sample index: its place in the sorted list over all sources
  int64_t source = 0;  // which source
};

struct Batch {
  at::Tensor image;  // float [B, C, H, W] or [B, C, D, H, W]
  at::Tensor label;  // int64 [B], or [B, H, W] / [B, D, H, W] for masks; undefined = no labels;
                     // -1 = counts nowhere (padding of the last evaluation batch).
                     // Models that learn values: float [B, V] or [B, V, sides...]; NaN = counts
                     // nowhere
  at::Tensor label_other;  // int64 [B]: second class of a mixed sample; undefined = none is mixed
  at::Tensor label_share;  // float [B]: share of `label` in it, 1 - share is that of label_other
  at::Tensor boxes;        // float [B, M, 4]: x0, y0, x1, y1 in pixels of `image`
  at::Tensor box_classes;  // int64 [B, M]; -1 = no box
  at::Tensor mask_noise;   // float [B, L]; undefined = drawn from the run's seed (mae)
  at::Tensor timestep;     // int64 [B]; undefined = drawn (diffusion)
  at::Tensor noise;        // float like image; undefined = drawn (diffusion)
  /// float [B, C, 2]: values of `image` that are black and white where edges are looked for; equal
  /// values, or undefined: from the sample's least value to its largest.
  at::Tensor pixel_range;
  /// float [B, C, L, P^k]: pixels of the leaves, beside the image or in its place; undefined: models
  /// with leaves make them of the image.
  at::Tensor leaf_tokens;
  at::Tensor leaf_boxes;  // float [B, L, 2k]: low and high corner in pixels, axis by axis (lows
                          // first); a box of no extent is padding
  /// Names of the image's channels, out of model.variables; empty = all of them in order.
  std::vector<std::string> variables;
  at::Tensor augment_plan;  // uint8 [B, bytes]: steps still to be applied (augment_batch.h)
  at::Tensor sample_ids;    // int64 [B] on image's device: global sample index, the place of every
                            // random draw
  int64_t epoch = 0;
  int64_t slot = 0;  // of the first sample in the epoch's global sequence

  int64_t size() const {
    return image.defined() ? image.size(0) : leaf_tokens.defined() ? leaf_tokens.size(0) : 0;
  }
  /// Every tensor that holds one row per sample, undefined ones too.
  std::array<at::Tensor*, 14> columns() {
    return {&image,    &label, &label_other, &label_share, &boxes,      &box_classes,  &mask_noise,
            &timestep, &noise, &pixel_range, &leaf_tokens, &leaf_boxes, &augment_plan, &sample_ids};
  }
  /// Those of them that are defined.
  std::vector<at::Tensor*> rows() {
    std::vector<at::Tensor*> defined;
    for (at::Tensor* tensor : columns())
      if (tensor->defined()) defined.push_back(tensor);
    return defined;
  }
};

}  // namespace vitrail::data
