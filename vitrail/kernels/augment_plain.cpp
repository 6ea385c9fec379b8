#include <algorithm>
#include <cstring>

#include "vitrail/core/thread_pool.h"
#include "vitrail/kernels/augment_finish.h"

namespace vitrail::kernels {
namespace {

void collect(const AugmentJob& job, ChannelStatistics* statistics) {
  for (int32_t c = 0; c < job.channels; ++c) {
    std::memset(statistics[c].histogram, 0, sizeof(statistics[c].histogram));
    statistics[c].sum = 0;
  }
  const int64_t n = job.in_pixels;
  const bool is_rgb = job.channels == 3;
  for (int32_t p = 0; p < job.in_pixels && job.slot->op == AugmentOp::contrast; ++p) {
    if (is_rgb) statistics[0].sum += summand(grey_of(job.in[p], job.in[n + p], job.in[2 * n + p]));
    for (int32_t c = 0; c < job.channels && !is_rgb; ++c)
      statistics[c].sum += summand(job.in[c * n + p]);
  }
  for (int32_t c = 0; c < job.channels && job.slot->op != AugmentOp::contrast; ++c)
    for (int32_t p = 0; p < job.in_pixels; ++p)
      ++statistics[c].histogram[byte_of(job.in[c * n + p])];
}

void summarise(const AugmentJob& job, ChannelStatistics* statistics) {
  for (int32_t c = 0; c < job.channels; ++c) {
    ChannelStatistics& channel = statistics[c];
    channel.mean = mean_of(channel.sum, job.in_pixels);
    if (job.slot->op == AugmentOp::contrast) continue;
    const Levels levels = levels_of(channel.histogram, job.in_pixels);
    uint32_t before = 0;
    for (int32_t byte = 0; byte < 256; ++byte) {
      channel.table[byte] = table_value(job.slot->op, levels, byte, before);
      before += channel.histogram[byte];
    }
  }
}

void run_slot(const AugmentBatch& batch, int64_t b, int32_t s) {
  const AugmentJob job = job_of(batch, b, s);
  if (needs_statistics(job.slot->op)) {
    auto* statistics = static_cast<ChannelStatistics*>(batch.statistics) + b * batch.image.channels;
    collect(job, statistics);
    summarise(job, statistics);
  }
  for (int32_t p = 0; p < job.out_pixels; ++p) augment_pixel(job, p);
  const AugmentSlot& slot = *job.slot;
  if (!is_geometric(slot.op)) return;
  const int32_t done = slot.geometric_before;
  if (batch.mask.in) {
    const int64_t* in = buffer_of(batch.mask, b, done);
    int64_t* out = buffer_of(batch.mask, b, done + 1);
    for (int32_t p = 0; p < job.out_pixels; ++p) out[p] = moved_class(slot, in, p);
  }
  for (int64_t v = 0; v < batch.values.channels && batch.values.in; ++v) {
    const float* in = buffer_of(batch.values, b, done) + v * job.in_pixels;
    float* out = buffer_of(batch.values, b, done + 1) + v * job.out_pixels;
    for (int32_t p = 0; p < job.out_pixels; ++p) out[p] = moved_value(slot, in, p);
  }
}

}  // namespace

int64_t augment_statistics_bytes(int64_t batch, int64_t channels) {
  return batch * channels * static_cast<int64_t>(sizeof(ChannelStatistics));
}

void augment_cpu(const AugmentBatch& batch, int threads) {
  const int64_t grain = std::max<int64_t>(1, batch.batch / (4 * threads));
  core::parallel_for(threads, 0, batch.batch, grain, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int32_t steps = row_of(batch, b).header->steps;
      for (int32_t s = 0; s < steps; ++s) run_slot(batch, b, s);
    }
  });
  // A sample may need its neighbour's result, so this comes after all of them.
  const auto pixels = static_cast<int32_t>(batch.target[0] * batch.target[1] * batch.target[2]);
  core::parallel_for(threads, 0, batch.batch, grain, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const FinishJob job = finish_job_of(batch, b);
      for (int32_t p = 0; p < pixels; ++p) finish_pixel(batch, job, p);
      finish_label(batch, b);
      for (int64_t m = 0; m < batch.max_boxes; ++m) finish_box(batch, b, m);
    }
  });
}

}  // namespace vitrail::kernels
