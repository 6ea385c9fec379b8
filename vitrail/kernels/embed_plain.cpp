#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/embed.h"

namespace vitrail::kernels {

void patchify_plain(const Patchify& task) {
  const int64_t P = task.patch, depth = task.is_volume ? P : 1;
  const int64_t sides[3] = {task.grid[0] * depth, task.grid[1] * P, task.grid[2] * P};
  uint16_t* out = task.patches;
  for (int64_t s = 0; s < task.samples; ++s)
    for (int64_t g0 = 0; g0 < task.grid[0]; ++g0)
      for (int64_t g1 = 0; g1 < task.grid[1]; ++g1)
        for (int64_t g2 = 0; g2 < task.grid[2]; ++g2)
          for (int64_t c = 0; c < task.channels; ++c)
            for (int64_t p0 = 0; p0 < depth; ++p0)
              for (int64_t p1 = 0; p1 < P; ++p1) {
                const int64_t plane = (s * task.channels + c) * sides[0] + g0 * depth + p0;
                const float* row =
                    task.image + (plane * sides[1] + g1 * P + p1) * sides[2] + g2 * P;
                for (int64_t p2 = 0; p2 < P; ++p2) *out++ = to_bf16(row[p2]);
              }
}

void join_tokens_plain(const JoinTokens& task) {
  check_width("join_tokens", task.width);
  uint16_t* out = task.all;
  for (int64_t s = 0; s < task.samples; ++s) {
    for (int64_t i = 0; i < task.prefix * task.width; ++i) *out++ = task.prefix_rows[i];
    const uint16_t* rows = task.rows + s * task.tokens * task.width;
    for (int64_t i = 0; i < task.tokens * task.width; ++i)
      *out++ =
          task.positions ? to_bf16(from_bf16(rows[i]) + from_bf16(task.positions[i])) : rows[i];
  }
}

void split_tokens_plain(const SplitTokens& task) {
  check_width("split_tokens", task.width);
  for (int64_t s = 0; s < task.samples; ++s)
    for (int64_t i = 0; i < task.tokens * task.width; ++i)
      task.rows[s * task.tokens * task.width + i] =
          task.all[(s * (task.prefix + task.tokens) + task.prefix) * task.width + i];
}

}  // namespace vitrail::kernels
