#pragma once
// Zeros for the tokens that do not count.

#include <cstdint>

#include "vitrail/kernels/attention.h"

namespace vitrail::kernels {

/// Writes 0 to rows [lengths[sample], tokens) of both; `width` values a row, a multiple of 8.
void clear_padding(const HeadRows<uint16_t>& first, const HeadRows<uint16_t>& second,
                   const int32_t* lengths, int64_t samples, int64_t tokens, int64_t width,
                   void* stream);

}  // namespace vitrail::kernels
