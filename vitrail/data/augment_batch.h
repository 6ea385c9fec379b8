#pragma once
/// Augmentation of a whole batch where the batch lies, after its plan.
///
/// The loader draws, for each sample, what every step of its source's `augment` list does, and puts
/// that into Batch::augment_plan: a row of numbers a sample, no pixels. augmented() then does it, on
/// the GPU in a few kernels for the whole batch or on the CPU by the same functions.

#include <cstdint>
#include <vector>

#include "vitrail/data/batch.h"

namespace vitrail::data {

/// Carries out batch.augment_plan on batch's device and clears it; a batch without a plan is returned
/// as it is. The image enters in units of source.normalize, before mean and std, in its staging size
/// (each row filled from its start by the sample's own sides), and leaves with mean and std applied in
/// `image_size`. Masks, values and boxes follow.
///
/// Mixing   samples 2 i and 2 i + 1 are a pair, mixed as the row of the first says when both lists
///          mix; so that ranks do not matter as long as each has an even number of places. Batches of
///          classes get label_other and label_share; on a GPU also those in which nothing is mixed
///          (share 1). Numbers to be learnt are blended.
/// Memory   a second buffer of the staging size and the result; the batch's own buffers are overwritten.
/// throws   Error for tensors that do not fit each other; on a GPU in a build without CUDA.
Batch augmented(Batch batch, const std::vector<int64_t>& image_size);

/// Keeps one channel of the image of a batch on the host, with or without a plan.
void keep_channel(Batch& batch, int64_t channel, bool pin_memory);

}  // namespace vitrail::data
