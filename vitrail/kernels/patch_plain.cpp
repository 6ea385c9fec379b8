#include <vector>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/patch.h"

namespace vitrail::kernels {

void keep_tokens_plain(const TokenShape& shape, const uint16_t* all, const int64_t* keep,
                       uint16_t* kept) {
  check_width("keep_tokens", shape.width);
  const auto& [samples, tokens, count, prefix, width] = shape;
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t row = 0; row < prefix + count; ++row) {
      const int64_t from = row < prefix ? row : prefix + keep[s * count + row - prefix];
      for (int64_t c = 0; c < width; ++c)
        kept[(s * (prefix + count) + row) * width + c] =
            all[(s * (prefix + tokens) + from) * width + c];
    }
}

void restore_tokens_plain(const RestoreTokens& task) {
  check_width("restore_tokens", task.shape.width);
  const auto& [samples, tokens, count, prefix, width] = task.shape;
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t row = 0; row < prefix + tokens; ++row) {
      const int64_t token = row - prefix;  // below 0: of the prefix
      const int64_t place = token < 0 ? row : prefix + task.restore[s * tokens + token];
      const uint16_t* from = place < prefix + count
                                 ? task.kept + (s * (prefix + count) + place) * width
                                 : task.mask_token;
      const uint16_t* positions =
          token >= 0 && task.positions ? task.positions + s * task.position_stride + token * width
          : token < 0 && task.prefix_positions ? task.prefix_positions + row * width
                                               : nullptr;
      for (int64_t c = 0; c < width; ++c)
        task.all[(s * (prefix + tokens) + row) * width + c] = to_bf16(
            (from ? from_bf16(from[c]) : 0.0f) + (positions ? from_bf16(positions[c]) : 0.0f));
    }
}

void restore_tokens_sums_plain(const RestoreTokensSums& task) {
  const auto& [samples, tokens, count, prefix, width] = task.shape;
  check_width("restore_tokens_sums", width);
  std::vector<double> token_sums(static_cast<size_t>(width)),
      sums(static_cast<size_t>((prefix + tokens) * width));
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t row = 0; row < prefix + tokens; ++row)
      for (int64_t c = 0; c < width; ++c) {
        const double d = from_bf16(task.dall[(s * (prefix + tokens) + row) * width + c]);
        sums[row * width + c] += d;
        if (row >= prefix && task.restore[s * tokens + row - prefix] >= count) token_sums[c] += d;
      }
  const auto add = [](float* to, const double* from, int64_t values) {
    for (int64_t i = 0; i < values && to; ++i) to[i] = static_cast<float>(to[i] + from[i]);
  };
  add(task.dmask_token, token_sums.data(), width);
  add(task.dprefix_positions, sums.data(), prefix * width);
  add(task.dpositions, sums.data() + prefix * width, tokens * width);
}

}  // namespace vitrail::kernels
