#pragma once
/// Adds the ranks' parts of a buffer element by element, in rank order.

#include <span>

#include "vitrail/comm/communicator.h"

namespace vitrail::comm {

/// throws CommError naming `collective` for a type that groups do not carry, or an average of
/// integers.
void require_carried(const char* collective, core::DType dtype);
void require_reducible(const char* collective, core::DType dtype, Reduce op);

/// out[i] = parts[0][i] op parts[1][i] op ..., each part out.count elements of out.dtype. bf16 and
/// f16 accumulate in fp32 and round once; the result does not depend on how a buffer is cut. `out`
/// may be one of the parts.
void reduce_in_order(Buffer out, std::span<const void* const> parts, Reduce op);

}  // namespace vitrail::comm
