#include "vitrail/kernels/attention.h"

namespace vitrail::kernels {

std::unique_ptr<AttentionKernel> short_attention(const AttentionShape&, int) { return nullptr; }

}  // namespace vitrail::kernels
